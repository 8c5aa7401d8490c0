"""A dry run says of a release that it would be more files than the Hub takes."""

import json
from pathlib import Path

import pytest

from builder.dry_run import print_plan
from builder.making import Wanted
from builder.planning import hub_limits
from builder.planning.hub_limits import MOST_FILES, MOST_IN_FOLDER, planned_problem
from builder.planning.recipe import load_recipe
from release.classes.class_list import load_classes


def test_what_is_planned_is_counted_as_it_is_published():
    assert planned_problem(MOST_IN_FOLDER, 4, arrow=True) is None
    assert planned_problem(33_330, 3, arrow=False) is None  # in sub-folders, markers in one file
    many = planned_problem(33_332, 3, arrow=False)
    assert many is not None
    assert many.startswith("would be 100,003 files on the Hub, which takes 100,000: build it with")
    arrow = planned_problem(MOST_IN_FOLDER + 1, 1, arrow=True)
    assert arrow is not None
    assert "10,000 Arrow files in a folder" in arrow
    assert planned_problem(MOST_FILES // 2 - 4, 1, arrow=False) is None


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_says_so_before_anything_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a dry run sets it
    recipe = load_recipe("imagenet-if")  # whose model is not at hand: nothing is sampled
    classes = load_classes(recipe.classes)
    wanted = Wanted(recipe, recipe.chain(None), classes, classes[:2], per_class=50)

    def printed() -> str:
        print_plan(wanted, tmp_path, as_json)
        return capsys.readouterr().out

    assert "files on the Hub" not in printed()
    monkeypatch.setattr(hub_limits, "MOST_FILES", 3)
    found = json.loads(printed())["unpublishable"] if as_json else printed()
    assert "files on the Hub, which takes 3: build it with more images in a shard" in found
    assert list(tmp_path.iterdir()) == []
