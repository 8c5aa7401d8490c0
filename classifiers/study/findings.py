"""What a study answers: findings of the paper, and comparisons that the paper lacks.

A difference counts if both its intervals exclude 0, that over seeds and that over test images;
else, as always with one seed, it is not statistically significant.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from classifiers.study.report_model import UNDECIDED, Arm, Comparison, Difference, Finding
from classifiers.training.outcomes import Outcomes
from classifiers.training.paired_difference import difference

Key = tuple[str, int, str, str]  # model, resolution, size, arm
BELOW_REAL = "2: generated alone stays below real"
ABOVE_REAL = "2: real + generated is above real"
CONTROL = "real + generated is above the same real images visited as often"


def findings(rows: Sequence[Arm], outcomes: Mapping[Key, Outcomes]) -> list[Finding]:
    """Azizi et al. 2023, findings 2 and 4, for each classifier, size, generated set and budget.

    rows, outcomes: of each arm. The answer is "reproduced", "not reproduced" or "not significant".
    """
    found = [finding for row in rows for finding in _against_real(row)]
    for curve in curves(rows):
        if curve[0].kind == "real+generated" and len(curve) > 1:
            # Chosen on the images that then judge it, which leans towards "reproduced".
            best, last = max(curve[:-1], key=lambda row: row.top1.mean), curve[-1]
            fall = difference(outcomes[best.key], outcomes[last.key])
            found.append(
                Finding(
                    finding="4: too many generated images hurt",
                    **_where(last),
                    against=best.arm,
                    best_times=best.times,
                    **_answered(Difference(**fall), _reproduced(-1)),
                )
            )
    return found


def _against_real(row: Arm) -> Iterator[Finding]:
    if row.difference is not None and row.kind in ("generated", "real+generated"):
        below = row.kind == "generated"
        yield Finding(
            finding=BELOW_REAL if below else ABOVE_REAL,
            **_where(row),
            against="real",
            **_answered(row.difference, _reproduced(-1 if below else 1)),
        )


def comparisons(rows: Sequence[Arm], outcomes: Mapping[Key, Outcomes]) -> list[Comparison]:
    """Generated images against the same real ones again, and each generated set against another.

    rows, outcomes: of each arm. The answer is "above", "below" or "not significant".
    """
    pairs = [(CONTROL, *pair) for pair in with_controls(rows)] + [*_between_sets(rows)]
    found = []
    for question, first, second in pairs:
        gain = Difference(**difference(outcomes[second.key], outcomes[first.key]))
        answer = _answered(gain, ("above", "below"))
        found.append(Comparison(question=question, **_where(first), against=second.arm, **answer))
    return found


def with_controls(rows: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """Each real + generated arm beside the real images visited as often as both together.

    A control that makes as many updates as the real arm does not visit them as often.
    """
    by_epochs = [row for row in rows if row.budget == "epochs"]
    for row in by_epochs:
        if row.kind == "real+generated":
            for control in by_epochs:
                if control.kind == "real-repeated" and _alike(row, control):
                    yield row, control


def _between_sets(rows: Sequence[Arm]) -> Iterator[tuple[str, Arm, Arm]]:
    generated = [row for row in rows if row.generated]
    for first, second in combinations(generated, 2):
        same = (first.kind, first.budget) == (second.kind, second.budget)
        if same and first.generated != second.generated and _alike(first, second):
            yield f"{first.generated} is above {second.generated}", first, second


def _alike(first: Arm, second: Arm) -> bool:
    return first.group == second.group and first.times == second.times


def _where(row: Arm) -> dict[str, Any]:
    keys = ("model", "resolution", "size", "arm", "generated", "times", "budget")
    return {key: getattr(row, key) for key in keys}


def curves(rows: Sequence[Arm]) -> list[list[Arm]]:
    """Rows, but for the real ones, that differ in k alone, which rises."""
    found: dict[tuple[Any, ...], list[Arm]] = {}
    for row in rows:
        if row.kind != "real":
            where = (*row.group, row.kind, row.generated, row.budget)
            found.setdefault(where, []).append(row)
    return [sorted(own, key=lambda row: row.times) for own in found.values()]


def _reproduced(sign: int) -> tuple[str, str]:
    answers = ("reproduced", "not reproduced")
    return answers if sign > 0 else answers[::-1]


def _answered(found: Difference, answers: tuple[str, str]) -> dict[str, Any]:
    """answers: if it lies above 0, and if below."""
    intervals = (found.over_seeds, found.over_images)
    decided = all(ends is not None and not ends[0] <= 0 <= ends[1] for ends in intervals)
    return {
        "difference": found.value,
        "over_seeds": found.over_seeds,
        "over_images": found.over_images,
        "answer": answers[found.value < 0] if decided else UNDECIDED,
    }
