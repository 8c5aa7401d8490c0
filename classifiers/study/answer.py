"""A study's answer in a few sentences: how often generated images helped."""

from collections.abc import Sequence

from classifiers.study.findings import ABOVE_REAL, BELOW_REAL, CONTROL
from classifiers.study.report_model import UNDECIDED, Comparison, Finding, StudyReport

BETTER = {"reproduced", "above"}
BUDGETS = (("steps", "updates"), ("epochs", "epochs"))


def answer(report: StudyReport) -> list[str]:
    """One sentence a question: of how many cases real + generated images are better, or worse.

    A case is a classifier, a number of real images, a generated set and its size.
    """
    return [
        *_against_real(report, ABOVE_REAL, "Real + generated images against the real ones alone"),
        *_sentence(
            "Real + generated images against the same real ones, visited as often",
            [row for row in report.comparisons if row.question == CONTROL],
            BETTER,
        ),
        *_against_real(report, BELOW_REAL, "Generated images alone against real ones"),
    ]


def _against_real(report: StudyReport, finding: str, asked: str) -> list[str]:
    better = BETTER if finding == ABOVE_REAL else {"not reproduced"}
    return [
        line
        for budget, word in BUDGETS
        for line in _sentence(
            f"{asked}, at equal {word}",
            [row for row in report.findings if (row.finding, row.budget) == (finding, budget)],
            better,
        )
    ]


def _sentence(asked: str, cases: Sequence[Finding | Comparison], better: set[str]) -> list[str]:
    """None where the study did not ask."""
    if not cases:
        return []
    above = sum(row.answer in better for row in cases)
    open_ = sum(row.answer == UNDECIDED for row in cases)
    counts = f"better in {above} of {len(cases)}, worse in {len(cases) - above - open_}"
    return [f"{asked}: {counts}, no statistically significant difference in {open_}."]
