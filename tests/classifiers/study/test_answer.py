"""A study's answer in a few sentences, and the words of older reports."""

import json

import pytest

from classifiers.study.answer import answer
from classifiers.study.report_model import StudyReport
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def content() -> dict:
    return json.loads((ROOT / "results/fashion-mnist/study/report.json").read_text())


def test_the_cases_of_a_question_are_counted(content: dict) -> None:
    """Counted anew from the intervals of the committed study."""
    lines = answer(StudyReport.model_validate(content))
    assert len(lines) == 4
    equal = [
        row
        for row in content["rows"]
        if (row["kind"], row["budget"]) == ("real+generated", "steps")
    ]
    lows = [min(row["difference"][o][0] for o in ("over_seeds", "over_images")) for row in equal]
    highs = [max(row["difference"][o][1] for o in ("over_seeds", "over_images")) for row in equal]
    better, worse = sum(low > 0 for low in lows), sum(high < 0 for high in highs)
    assert lines[0] == (
        "Real + generated images against the real ones alone, at equal updates: better in "
        f"{better} of {len(equal)}, worse in {worse}, no statistically significant difference "
        f"in {len(equal) - better - worse}."
    )


def test_generated_images_alone_are_better_where_the_paper_is_not_reproduced(content: dict) -> None:
    for row in content["findings"]:
        if row["finding"].startswith("2: generated alone"):
            row["answer"] = "not reproduced"
    last = answer(StudyReport.model_validate(content))[-1]
    assert ": better in 12 of 12, worse in 0," in last


def test_reports_of_older_versions_say_the_same(content: dict) -> None:
    older = json.loads(json.dumps(content).replace('"not significant"', '"not told apart"'))
    assert older != content
    assert StudyReport.model_validate(older).content() == content
