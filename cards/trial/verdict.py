"""The answer of a trial: whether generated images helped, how sure that is, for which classes."""

import math
from typing import Literal

from pydantic import BaseModel

from classifiers.study.report_model import Arm, Comparison, StudyReport

CLEAR = 0.05  # of the accuracy: a difference worth knowing of


class Verdict(BaseModel):
    """said: helps, does not help (real images visited again do better), or not shown.

    sentences: the answer first. difference: top-1 of real + generated less that of the same real
    images visited as often, in [-1, 1].
    """

    said: Literal["helps", "does not help", "not shown"]
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
    said: Literal["helps", "does not help", "not shown"] = "not shown"
    if found.answer in ("above", "below"):
        said = "helps" if found.answer == "above" else "does not help"
    helped, harmed = _classes(report, both, repeated)
    sentences = (
        _first(said, report, both, repeated, found),
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


def _first(said: str, report: StudyReport, both: Arm, repeated: Arm, found: Comparison) -> str:
    opening = {
        "helps": "Generated images help",
        "does not help": "Generated images do not help",
        "not shown": "It is not shown at this size that generated images help",
    }[said]
    return (
        f"{opening}: {both.model} trained on the real images and {both.times:g} generated ones for "
        f"each is right on {_percent(both.top1.mean)} of {report.test.n:,} test images; trained "
        f"on the real images alone, visited as often, on {_percent(repeated.top1.mean)} "
        f"({_points(found)})."
    )


def _beside_real(report: StudyReport, both: Arm) -> str:
    real = next(arm for arm in report.rows if arm.kind == "real")
    alone = next(arm for arm in report.rows if arm.kind == "generated")
    equal = next(arm for arm in report.rows if arm.kind == both.kind and arm.budget == "steps")
    return (
        f"With fewer updates: real images alone {_percent(real.top1.mean)}, real and generated at "
        f"as many updates {_percent(equal.top1.mean)}; as many updates on generated images alone "
        f"{_percent(alone.top1.mean)}."
    )


def _of_classes(helped: tuple[str, ...], harmed: tuple[str, ...]) -> str:
    if not helped and not harmed:
        return "No class is helped or harmed by a statistically significant difference."
    parts = [
        f"{word}: {', '.join(names)}"
        for word, names in (("Helped", helped), ("harmed", harmed))
        if names
    ]
    return f"{'; '.join(parts)} (false discovery rate 5%)."


def _to_know_better(said: str, report: StudyReport, found: Comparison) -> str:
    """How many test images would tell, if the difference stays what it was here."""
    if said != "not shown":
        return "One generator was trained, once; another seed of it may do otherwise."
    if found.over_images is None or len(report.seeds) < 2:
        return "With one seed nothing can be told: give --seeds 0,1,2."
    tests = report.test.n
    half = (found.over_images[1] - found.over_images[0]) / 2
    detectable = f"With {tests:,} test images a difference of {100 * half:.1f} points can be told."
    needed = math.ceil(tests * (half / CLEAR) ** 2)
    if needed > tests:
        detectable += f" For one of {100 * CLEAR:g} points it takes about {needed:,}."
    return f"{detectable} More --minutes make a better generator, more --seeds narrower intervals."


def _classes(
    report: StudyReport, both: Arm, repeated: Arm
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = next(
        (c.rows for c in report.classes if (c.arm, c.against) == (both.arm, repeated.arm)), ()
    )
    helped, harmed = (
        tuple(row.name for row in rows if row.verdict == word) for word in ("helped", "harmed")
    )
    return helped, harmed


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(found: Comparison) -> str:
    value = f"{100 * found.difference:+.1f} points"
    parts = [
        f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f} over {what}"
        for what, ends in (("seeds", found.over_seeds), ("test images", found.over_images))
        if ends is not None
    ]
    return f"{value}, 95% {' and '.join(parts)}" if parts else value
