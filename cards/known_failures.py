"""What is known to be wrong with a release's images, as its results and manifest tell."""

from collections.abc import Iterator, Sequence

from cards.card_facts import AcceptFacts
from cards.measured import ClassScore, Score, Scored
from cards.release_results import About, AboutTraining, Results
from cards.result_schema import ClassValue
from cards.score_names import extractor_name, score_name

WORST = 5  # classes or pairs named
AGREEMENT, COPIES, NEAREST = "agreement", "copies_train", "nearest_train"


def known_failures(results: Results, accepts: Sequence[AcceptFacts]) -> list[str]:
    """One sentence each."""
    return [
        *(line for about in results.trainings for line in _worst_learned(about)),
        *(line for about in results.scores for line in _low_agreement(about)),
        *(line for about in results.scores for line in _worst_scored(about)),
        *(line for about in results.scores for line in _near_copies(about)),
        *_empty_slots(accepts),
    ]


def not_measured(results: Results) -> list[str]:
    """What nobody looked at, with what would measure it."""
    keys = {key for about in results.scores for key in about.row.scores}
    lines = []
    if "accuracies of classifiers" in results.missing:
        lines.append("what the images are worth as a training set (`train-classifier`)")
    if "distances" in results.missing:
        lines.append("how far they lie from the real ones (`score-release`)")
    if AGREEMENT not in keys:
        lines.append("whether a classifier sees the class that was asked for (`agreement`)")
    if COPIES not in keys:
        lines.append("near copies of training images (`copies`)")
    return lines


def _worst_learned(about: AboutTraining) -> Iterator[str]:
    """Where the classifier loses most against real images; without those, where it is worst."""
    if not about.row.per_class:
        return
    model = f"{about.ranking.settings['model']} trained on {about.trained_on}"
    real = {c.wnid: c.top1 for c in about.baseline.per_class} if about.baseline else {}
    if not all(c.wnid in real for c in about.row.per_class):
        rows = sorted(about.row.per_class, key=lambda c: (c.top1, c.wnid))[:WORST]
        yield f"Lowest top-1 ({model}): {_listed(f'{c.name} {_percent(c.top1)}' for c in rows)}."
        return

    def loss(c: ClassScore) -> float:
        return real[c.wnid] - c.top1

    rows = sorted(about.row.per_class, key=lambda c: (-round(loss(c), 9), c.wnid))[:WORST]
    named = [f"{c.name} {_percent(c.top1)} ({_percent(real[c.wnid])})" for c in rows if loss(c) > 0]
    if named:
        yield f"Largest loss of top-1 against real images, theirs in brackets ({model}): " + (
            f"{_listed(named)}."
        )


def _low_agreement(about: About[Scored]) -> Iterator[str]:
    rows = about.row.per_class.get(AGREEMENT, ())
    if rows:
        lowest = sorted(rows, key=lambda c: (c.value, c.wnid))[:WORST]
        named = _listed(f"{c.name} {_percent(c.value)} of {c.n:,}{_interval(c)}" for c in lowest)
        yield (
            f"Lowest label agreement, the share of a class's images in which "
            f"{extractor_name(about.ranking.settings)} sees that class: {named}."
        )


def _worst_scored(about: About[Scored]) -> Iterator[str]:
    where = f"{extractor_name(about.ranking.settings)}, `{about.row.source.config}`"
    for key, rows in about.row.per_class.items():
        if key != AGREEMENT:
            worst = sorted(rows, key=lambda c: (-c.value, c.wnid))[:WORST]
            named = _listed(f"{c.name} {c.value:.3g}" for c in worst)
            yield f"Worst {score_name(key)} within a class ({where}): {named}."


def _near_copies(about: About[Scored]) -> Iterator[str]:
    values, scores = about.row.values, about.row.scores
    if COPIES in scores:
        score, expected = scores[COPIES], values[COPIES].expected
        count = f" of {score.n:,} images" if score.n else " of the images"
        line = (
            f"{_percent(score.mean)}{_interval(score)}{count} lie nearer to a training image than "
            f"nearly all held-out real images do ({extractor_name(about.ranking.settings)})"
        )
        honest = "" if expected is None else f"; a generator that copies nothing has {expected:.0%}"
        yield f"{line}{honest}."
    pairs = values[NEAREST].pairs[:WORST] if NEAREST in values else ()
    if pairs:
        named = _listed(f"`{p.image}` to `{p.nearest}` ({p.distance:.3g})" for p in pairs)
        yield f"Closest to training images, by distance of features: {named}."


def _empty_slots(accepts: Sequence[AcceptFacts]) -> Iterator[str]:
    for accept in accepts:
        empty = [c for c in accept.classes if c.empty]
        if empty:
            most = sorted(empty, key=lambda c: (-c.empty, c.wnid))[:WORST]
            named = _listed(f"{c.name} {c.empty:,}" for c in most)
            yield (
                f"{accept.total.empty:,} images are missing at {accept.resolution} px, since no "
                f"attempt at them was accepted; most in: {named}."
            )


def _listed(parts: Iterator[str] | list[str]) -> str:
    return ", ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _interval(row: ClassValue | Score) -> str:
    if row.interval is None:
        return ""
    low, high = row.interval
    return f" [{100 * low:.1f}, {100 * high:.1f}]"
