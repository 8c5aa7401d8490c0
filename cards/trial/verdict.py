"""The answer of a trial: whether generated images helped, how sure that is, for which classes."""

import math
from typing import Literal

from pydantic import BaseModel

from cards.drawing.tables import signed
from classifiers.study.report_model import Arm, Comparison, StudyReport

Said = Literal["helps", "does not help", "not shown"]
ANSWERS: dict[Said, str] = {
    "helps": "Generated images help.",
    "does not help": "Generated images do not help: real images visited again do better.",
    "not shown": "It is not shown at this size that generated images help.",
}
CLEAR = 0.05  # of the accuracy: a difference worth knowing of


class Verdict(BaseModel):
    """said: helps, does not help (real images visited again do better), or not shown.

    sentences: the answer first. difference: top-1 of real + generated less that of the same real
    images visited as often, in [-1, 1].
    """

    said: Said
    sentences: tuple[str, ...]
    difference: float
    over_seeds: tuple[float, float] | None
    over_images: tuple[float, float] | None
    helped: tuple[str, ...]
    harmed: tuple[str, ...]


def verdict(report: StudyReport) -> Verdict:
    """Of a trial's study, which has one classifier, one size and one generated set."""
    found = next(c for c in report.comparisons if c.against is not None)
    arms = {arm.arm: arm for arm in report.rows}
    both, repeated = arms[str(found.arm)], arms[str(found.against)]
    said: Said = "not shown"
    if found.answer in ("above", "below"):
        said = "helps" if found.answer == "above" else "does not help"
    helped, harmed = _classes(report, both, repeated)
    sentences = (
        ANSWERS[said],
        _headline(report, both, repeated, found),
        _beside_real(report, both),
        _of_classes(helped, harmed),
        _to_know_better(said, report, found),
    )
    return Verdict(
        said=said,
        sentences=sentences,
        difference=found.difference,
        over_seeds=found.over_seeds,
        over_images=found.over_images,
        helped=helped,
        harmed=harmed,
    )


def _headline(report: StudyReport, both: Arm, repeated: Arm, found: Comparison) -> str:
    many = "as many" if both.times == 1 else f"{both.times:.2g} times as many"
    return (
        f"{report.classifier(both.model)}, trained on the real images and {many} generated ones, "
        f"is right on {_percent(both.top1.mean)} of {report.test.n:,} test images. Trained on the "
        f"real images alone, visited as often, it is right on {_percent(repeated.top1.mean)}. The "
        f"difference is {_points(found)}.{_by_chance(report)}"
    )


def _by_chance(report: StudyReport) -> str:
    """What needs no classifier; nothing where the report has no classes."""
    counts = [row.n for c in report.classes[:1] for row in c.rows]
    if not counts:
        return ""
    share = _percent(max(counts) / sum(counts))
    return f" Guessing the commonest class each time is right on {share}."


def _beside_real(report: StudyReport, both: Arm) -> str:
    real = next(arm for arm in report.rows if arm.kind == "real")
    alone = next(arm for arm in report.rows if arm.kind == "generated")
    equal = next(arm for arm in report.rows if arm.kind == both.kind and arm.budget == "steps")
    return (
        f"At {real.steps:,} updates each, where those above made {both.steps:,}: real images alone "
        f"{_percent(real.top1.mean)}, real and generated {_percent(equal.top1.mean)}, generated "
        f"alone {_percent(alone.top1.mean)}."
    )


def _of_classes(helped: tuple[str, ...], harmed: tuple[str, ...]) -> str:
    if not helped and not harmed:
        return "No class is helped or harmed by a statistically significant difference."
    parts = [
        f"{word}: {', '.join(names)}"
        for word, names in (("Helped", helped), ("harmed", harmed))
        if names
    ]
    return f"{'; '.join(parts)} (most changed first; false discovery rate 5%)."


def _to_know_better(said: Said, report: StudyReport, found: Comparison) -> str:
    """How many test images would tell, if the difference stays what it was here."""
    if said != "not shown":
        return "One generator was trained, once; another seed of it may do otherwise."
    if found.over_images is None or found.over_seeds is None:
        return "With one seed no difference can be statistically significant: give --seeds 0,1,2."
    seeds, images = (_half(ends) for ends in (found.over_seeds, found.over_images))
    tests = report.test.n
    if seeds == images == 0:
        return (
            f"Both were right on the same of the {tests:,} test images, with every seed: it takes "
            "harder images, or more of them, to show a difference."
        )
    if seeds > images:
        return (
            f"The seeds of the classifier differ most: more of them, such as --seeds 0,1,2,3,4,5, "
            f"make the interval narrower; {tests:,} test images alone leave {100 * images:.1f} "
            "points to either side."
        )
    needed = math.ceil(tests * (images / CLEAR) ** 2)
    more = (
        f"; for one of {100 * CLEAR:g} points it takes about {needed:,}" if needed > tests else ""
    )
    return (
        f"With {tests:,} test images a difference of {100 * images:.1f} points would be "
        f"statistically significant{more}. More --minutes make a better generator."
    )


def _half(ends: tuple[float, float]) -> float:
    return (ends[1] - ends[0]) / 2


def _classes(
    report: StudyReport, both: Arm, repeated: Arm
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of each kind, those that changed most first."""
    found = next(
        (c.rows for c in report.classes if (c.arm, c.against) == (both.arm, repeated.arm)), ()
    )
    rows = sorted(found, key=lambda row: -abs(row.other - row.baseline))
    helped, harmed = (
        tuple(row.name for row in rows if row.verdict == word) for word in ("helped", "harmed")
    )
    return helped, harmed


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(found: Comparison) -> str:
    value = f"{_signed(found.difference)} points"
    parts = [
        f"{_signed(ends[0])} to {_signed(ends[1])} over {what}"
        for what, ends in (("seeds", found.over_seeds), ("test images", found.over_images))
        if ends is not None
    ]
    return f"{value} (95%: {' and '.join(parts)})" if parts else value


def _signed(share: float) -> str:
    """In points."""
    return signed(100 * share, 1)
