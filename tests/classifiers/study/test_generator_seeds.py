"""Sets of generated images of which each seed of a study has its own."""

from pathlib import Path

import pytest

from classifiers.study.markdown import markdown
from classifiers.study.plan import Planner
from classifiers.study.releases import missing_releases
from classifiers.study.report_model import StudyReport
from classifiers.study.study_file import Study, load_study
from tests.conftest import ROOT

STUDY = """
name = "seeds"
description = "for tests"
sizes = [2, "all"]
seeds = [4, 7]

[real]
source = "nowhere"
release = "real"
classes = 10
per_class = 5

[[generated]]
name = "own"
release = "made-{size}-{seed}"
recipe = "recipes/{seed}.toml"

[[generated]]
name = "one"
release = "made-{size}"

[[model]]
recipe = "fashion-mnist-small"

[[arm]]
kind = "real"

[[arm]]
kind = "real+generated"
times = [1]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "seeds.toml").write_text(STUDY)
    return load_study(str(tmp_path / "seeds.toml"))


def test_each_seed_trains_on_its_own_release(study: Study, tmp_path: Path) -> None:
    runs = Planner(study, tmp_path, {}, placed=False).runs()
    trained = {(run.generated, run.size, run.seed): Path(run.task.train[-1]).name for run in runs}
    assert trained["own", "2", 4] == "made-2-4"
    assert trained["own", "all", 7] == "made-all-7"
    assert trained["one", "2", 4] == trained["one", "2", 7] == "made-2"
    assert len(runs) == 2 * 2 * 3  # sizes, seeds, arms


def test_every_seeds_release_is_missing_by_its_own_recipe(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr("classifiers.study.releases.load_recipe", read.append)
    monkeypatch.setattr("classifiers.study.releases._is_there", lambda name: name == "real")
    monkeypatch.setattr("classifiers.study.releases._real_per_class", lambda _: 8.0)
    missing = {one.release: one.source for one in missing_releases(study)}
    assert missing["made-2-4"] == missing["made-all-4"] == "recipes/4.toml"
    assert missing["made-all-7"] == "recipes/7.toml"
    assert missing["made-2"] is None
    assert len(missing) == 6
    assert set(read) == {"recipes/4.toml", "recipes/7.toml"}


def test_the_report_says_what_its_intervals_cover() -> None:
    text = (ROOT / "results/fashion-mnist/study/report.json").read_text()
    assert "generator seed of its own" not in markdown(StudyReport.model_validate_json(text))
    own = text.replace('"releases/fashion-mnist-same-{size}"', '"releases/same-{size}-{seed}"')
    assert "generator seed of its own (set same)" in markdown(StudyReport.model_validate_json(own))
