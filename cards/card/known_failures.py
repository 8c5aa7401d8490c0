"""What is known to be wrong with a release's images, as its results and manifest tell."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from cards.card.facts import AcceptFacts
from cards.card.release_results import About, AboutTraining, Results
from cards.measured.class_changes import changes_between
from cards.measured.rankings import Score, Scored, Training
from cards.measured.score_names import extractor_name, score_name
from metrics.scoring.result_values import ClassValue

WORST = 5  # classes or pairs named
AGREEMENT, COPIES, NEAREST = "agreement", "copies_train", "nearest_train"


def known_failures(results: Results, accepts: Sequence[AcceptFacts]) -> list[str]:
    """One sentence each."""
    return [
        *(
            line
            for trained_on, trainings in results.by_training_set().items()
            for line in _worst_learned(trained_on, trainings)
        ),
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


def _worst_learned(trained_on: str, trainings: Sequence[AboutTraining]) -> Iterator[str]:
    """Where classifiers lose most against real images; without those, where they are worst."""
    known = [about for about in trainings if about.row.per_class]
    beside = [about for about in known if about.baseline and about.baseline.per_class]
    if not known:
        return
    who = f"{known[0].ranking.settings['model']} trained on {trained_on}"
    if len(beside or known) > 1:
        who = f"mean of {len(beside or known)} classifiers trained on {trained_on}"
    ours = _mean_top1(about.row for about in beside or known)
    real = _mean_top1(about.baseline for about in beside if about.baseline)
    names = {c.wnid: c.name for c in known[0].row.per_class}
    if not real:
        lowest = sorted(ours, key=lambda wnid: (ours[wnid], wnid))[:WORST]
        named = _listed(f"{names[wnid]} {_percent(ours[wnid])}" for wnid in lowest)
        yield f"Lowest top-1 ({who}): {named}."
        return
    loss = {wnid: round(real[wnid] - ours[wnid], 9) for wnid in ours}
    most = [w for w in sorted(loss, key=lambda w: (-loss[w], w)) if loss[w] > 0][:WORST]
    if most:
        named = _listed(f"{names[w]} {_percent(ours[w])} ({_percent(real[w])})" for w in most)
        yield (
            f"Largest loss of top-1 against real images alone, theirs in brackets ({who}): {named}."
            f" {_harmed(beside)}"
        )


def _harmed(beside: Sequence[AboutTraining]) -> str:
    """The classes that are harmed by the rule of the leaderboard."""
    lines, untested = [], False
    for about in beside:
        if about.baseline is None:
            continue
        changes, why_none = changes_between(about.baseline, about.row)
        untested = untested or bool(why_none)
        harmed = [change.name for change in changes if change.verdict == "harmed"][:WORST]
        if harmed:
            lines.append(f"{about.ranking.settings['model']}: {_listed(harmed)}")
    if lines:
        return f"Harmed by a statistically significant difference: {'; '.join(lines)}."
    needs = ", which takes three runs of both" if untested else ""
    return f"None of the differences is statistically significant{needs}."


def _mean_top1(rows: Iterable[Training]) -> dict[str, float]:
    """By class id, over trainings that were tested on the same classes."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        for c in row.per_class:
            shares.setdefault(c.wnid, []).append(c.top1)
    return {wnid: fmean(found) for wnid, found in shares.items()}


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


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _interval(row: ClassValue | Score) -> str:
    if row.interval is None:
        return ""
    low, high = row.interval
    return f" [{100 * low:.1f}, {100 * high:.1f}]"
