"""What a release's images are good for, as far as it was measured."""

from collections import Counter
from collections.abc import Sequence

from cards.card.release_results import AboutTraining, Results
from cards.measured.against_real import verdict
from cards.measured.rankings import Score
from release.layout.manifest import Manifest


def uses(manifest: Manifest, results: Results) -> list[str]:
    """One sentence each, of what follows from how the images were made."""
    if manifest.kind == "real":
        return ["Training and testing classifiers, and what generated images are compared with."]
    unmeasured = "Training classifiers: how far they go was not measured."
    return [
        *([] if results.trainings else [unmeasured]),
        "Studies of generated training data: each image has its seed, prompt and parent, and can "
        "be made again.",
    ]


def worth(manifest: Manifest, results: Results) -> list[str]:
    """One sentence for each training set that generated images are part of, as it was measured."""
    if manifest.kind == "real":
        return []
    return [_worth(*item) for item in results.by_training_set().items()]


def _worth(trained_on: str, trainings: Sequence[AboutTraining]) -> str:
    """What classifiers learned from one training set, beside real images alone."""
    alone = "As the only training images" if "real" not in trained_on else "Added to real images"
    ordered = sorted(trainings, key=lambda about: about.row.scores["top1"].mean)
    low, high = ordered[0], ordered[-1]
    ends = dict.fromkeys(_percent(about.row.scores["top1"]) for about in (low, high))
    verdicts = Counter(v for about in ordered if (v := _verdict(about)))
    beside = ""
    if low is high and low.baseline is not None:
        real = _percent(low.baseline.scores["top1"])
        beside = f", {real} with {low.baseline.images:,} real images alone"
    compared, many = verdicts.total(), len(ordered)
    found = "; ".join(
        verdict if count == many else f"{verdict} in {count} of {compared}"
        for verdict, count in verdicts.items()
    )
    if compared < many:
        found += f"; {many - compared} without real images alone of the same settings beside it"
    against = f" Against real images alone: {found}." if compared else ""
    reached = f"{_who(ordered)} {' to '.join(ends)} top-1"
    return f"{alone}: {reached} with {trained_on}{beside}.{against}"


def _who(ordered: Sequence[AboutTraining]) -> str:
    """ "resnet18 reaches", "resnet18 in 2 settings reaches", "3 classifiers, a to b, reach"."""
    models = list(dict.fromkeys(map(_model, ordered)))
    if len(models) > 1:
        low, high = _model(ordered[0]), _model(ordered[-1])
        named = f"{low} to {high}" if low != high else f"{', '.join(models)}"
        return f"{len(ordered)} classifiers, {named}, reach"
    return f"{models[0]}{f' in {len(ordered)} settings' if len(ordered) > 1 else ''} reaches"


def _verdict(about: AboutTraining) -> str:
    """How it compares; "" without real images beside."""
    if about.baseline is None:
        return ""
    return verdict(about.baseline.scores["top1"], about.row.scores["top1"])


def _model(about: AboutTraining) -> str:
    return str(about.ranking.settings["model"])


def _percent(score: Score) -> str:
    return f"{100 * score.mean:.2f}%"
