"""A recipe that was changed is told apart from the one that it is named after, everywhere."""

from dataclasses import replace
from pathlib import Path

import pytest

from cards.board.board import assemble_board
from cards.measured.rankings import classifier_rankings
from cards.measured.result_folder import read_folder, read_results
from cards.pages.page import render_html, render_markdown
from classifiers.recipes.recipe import load_recipe
from classifiers.study.report_model import StudyReport
from release.results.result import Result
from tests.cards.board.made_up_reports import a_study
from tests.cards.made_up_results import PROTOCOL, a_classifier_result, a_source, write_all

RECIPE = "imagenet-resnet50"
OF_THE_TEST = {"test_split": "test", "checkpoint": "last step"}


def trained(name: str, changes: tuple[str, ...] = (), steps: int | None = None) -> Result:
    """By the built-in recipe, with changes as --set and --steps make them."""
    recipe = load_recipe(RECIPE, changes)
    protocol = {**recipe.protocol(), "steps": steps, **OF_THE_TEST}
    if steps is not None:
        protocol["epochs"] = None
    made = a_classifier_result([a_source(name, 1000)], 0.5, 0, protocol=protocol)
    return replace(made, subject={**made.subject, "model": recipe.model, "recipe": RECIPE})


def titles(folder: Path, *results: Result) -> list[str]:
    write_all(folder, results)
    return [ranking.recipe for ranking in classifier_rankings(read_results(folder))]


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ((), None, RECIPE),
        (("epochs=1",), None, f"{RECIPE} with epochs=1"),
        ((), 200, f"{RECIPE} with steps=200"),
        (("model='resnet18'",), None, RECIPE),  # the model is told beside it
        (("augmentation.mixup=0.2",), None, f"{RECIPE} with augmentation.mixup=0.2"),
        (
            ("batch=64", "resolution=32", "epochs=1", "clip=1.0"),
            None,
            f"{RECIPE} with resolution=32, epochs=1, batch=64 and 1 more setting",
        ),
    ],
)
def test_what_was_set_is_told(
    tmp_path: Path, changes: tuple[str, ...], steps: int | None, expected: str
):
    assert titles(tmp_path, trained("good", changes, steps)) == [expected]


def test_what_two_trainings_differ_in_comes_first(tmp_path: Path):
    same = ("resolution=32", "epochs=1", "batch=64", "clip=1.0")
    found = titles(tmp_path, trained("good", same), trained("good", (*same, "label_smoothing=0.2")))
    assert found[0] == f"{RECIPE} with resolution=32, epochs=1, batch=64 and 1 more setting"
    assert found[1].startswith(f"{RECIPE} with label_smoothing=0.2, resolution=32, epochs=1 and 2")


def test_recipes_of_ones_own_are_told_apart_by_what_differs(tmp_path: Path):
    first = a_classifier_result([a_source("good", 1000)], 0.5, 0)
    second = replace(first, protocol={**PROTOCOL, "epochs": 20})
    assert titles(tmp_path / "alone", first) == ["small"]
    assert titles(tmp_path / "both", first, second) == [
        "small with epochs=10",
        "small with epochs=20",
    ]


def test_the_board_tells_it(tmp_path: Path):
    write_all(tmp_path, [trained("good"), trained("good", ("epochs=1",))])
    facets = assemble_board(read_folder(tmp_path), [])
    for page in (render_html(facets), render_markdown(facets)):
        assert f"recipe {RECIPE}, tested on" in page
        assert f"recipe {RECIPE} with epochs=1, tested on" in page
    recipes = {row.recipe for facet in facets for row in facet.measurements}
    assert {RECIPE, f"{RECIPE} with epochs=1"} <= recipes


def test_a_study_tells_what_it_set_and_what_tuning_chose(tmp_path: Path):
    report = StudyReport.model_validate_json(a_study(tmp_path).read_bytes())
    assert report.classifier("made-up-model") == "made-up-model"
    asked = [{"recipe": RECIPE, "set": ["epochs=1"]}, {"recipe": "mine.toml", "set": []}]
    study = report.study.model_copy(update={"model": asked})
    chosen = {"mine.toml": ("learning_rate=0.1",)}
    report = report.model_copy(update={"study": study, "chosen_settings": chosen})
    assert report.classifier(RECIPE) == f"{RECIPE} with epochs=1"
    assert report.classifier("made-up-model") == "made-up-model with learning_rate=0.1"
