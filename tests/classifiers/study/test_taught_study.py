"""A study's model with [teacher]: its real arm teaches its arms with generated images."""

import json
from pathlib import Path

import pytest

from classifiers.recipes.recipe import POOLED, Mixing, Teacher
from classifiers.run_study import run_study
from classifiers.study.cost import multiply_adds, study_costs
from classifiers.study.plan import Planner, Run, distinct
from classifiers.study.report_model import StudyReport
from classifiers.study.study_file import load_study
from classifiers.study.teachers import on_real_images
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import read_result
from tests.sets.shapes import changed, make_images, recipe_toml, write_release

TAUGHT = 'set = ["name=\\"taught\\"", "teacher.weight=0.4", "teacher.temperature=2"]'
STUDY = """
name = "shapes"
sizes = [4]
seeds = [0, 3]
[real]
source = "shapes"
release = "{place}/shapes-real"
train_split = "fit"
classes = 6
per_class = 10
[[generated]]
name = "drawn"
release = "{place}/shapes-16"
[[model]]
recipe = "{place}/tiny.toml"
{taught}
[[model]]
recipe = "{place}/tiny.toml"
[[arm]]
kind = "real"
[[arm]]
kind = "generated"
[[arm]]
kind = "real+generated"
[[arm]]
kind = "real-repeated"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    splits = {"train": make_images(10, 1), "test": make_images(6, 2)}
    write_release(folder / "shapes-real", splits)
    write_release(folder / "shapes-16", {"train": make_images(10, 3)}, kind="synthetic")
    (folder / "tiny.toml").write_text(recipe_toml(changed(epochs=4)))
    (folder / "both.toml").write_text(STUDY.format(place=folder, taught=TAUGHT))
    plain = '[[model]]\nrecipe = "{place}/tiny.toml"\n[[arm]]'
    (folder / "alone.toml").write_text(
        STUDY.replace(plain, "[[arm]]").format(place=folder, taught=TAUGHT)
    )
    return folder


def runs_of(study: Path, out: Path, *, placed: bool = True) -> dict[tuple[str, str, int], Run]:
    runs = Planner(load_study(str(study)), out, {}, placed).runs()
    return {(run.model, run.arm, run.seed): run for run in runs}


def test_the_real_arm_of_the_same_seed_is_the_teacher(place: Path, tmp_path: Path) -> None:
    runs = runs_of(place / "alone.toml", tmp_path)
    assert len(runs) == 4 * 2
    for (_, arm, seed), run in runs.items():
        real = runs["taught", "real", seed]
        if arm in ("real", "real-repeated-x1"):
            assert (run.task.recipe.teacher, run.task.teacher, run.after) == (None, None, ())
            continue
        assert run.task.recipe.teacher == Teacher(weight=0.4, temperature=2)
        assert run.task.teacher == real.save == real.path.with_suffix(".safetensors")
        assert run.after == (real.path,)
    saved = {arm for (_, arm, _), run in runs.items() if run.save}
    assert saved == {"real"}
    assert runs["taught", "real", 3].path.parent == tmp_path / "runs/taught-16/4"


def test_what_learns_without_a_teacher_is_the_plain_models_training(
    place: Path, tmp_path: Path
) -> None:
    """Also where the plain model comes after, and where nothing has a path yet."""
    both, plain = runs_of(place / "both.toml", tmp_path), runs_of(place / "alone.toml", tmp_path)
    for arm, shared in {
        "real": True,
        "real-repeated-x1": True,
        "generated-drawn-x1": False,
    }.items():
        taught, own = both["taught", arm, 0], both["tiny", arm, 0]
        assert (taught.training == own.training) == shared
        assert own.path.parent == tmp_path / "runs/tiny-16/4"
    assert both["tiny", "real", 0].save
    assert both["taught", "real", 0].path != plain["taught", "real", 0].path
    assert len(both) == 2 * 4 * 2
    unplaced = runs_of(place / "both.toml", tmp_path, placed=False)
    for runs in (both, unplaced):
        assert len(distinct(runs.values())) == (4 + 2) * 2


def test_names_of_results_do_not_hold_where_the_study_stands(place: Path, tmp_path: Path) -> None:
    here, there = (runs_of(place / "both.toml", tmp_path / name) for name in ("here", "there"))
    names = [
        {r.path.relative_to(tmp_path / n) for r in runs.values()}
        for n, runs in (("here", here), ("there", there))
    ]
    assert names[0] == names[1]


def test_the_first_model_that_is_it_but_for_teacher_or_mixing_names_the_plain_one() -> None:
    weak, strong = (changed(name=f"w{w}", teacher=Teacher(weight=w)) for w in (0.2, 0.8))
    plain, other = changed(name="plain"), changed(name="other", epochs=9)
    assert on_real_images(strong, [other, weak, strong]).name == "w0.2"
    assert on_real_images(strong, [other, weak, strong, plain]) == plain
    assert on_real_images(changed(name="second"), [plain]).name == "second"
    halves = changed(name="halves", mixing=Mixing(share=0.5))
    assert on_real_images(halves, [halves, other, weak, plain]) == plain
    assert on_real_images(halves, [halves, other]).mixing == POOLED


def test_tuning_is_by_the_plain_real_arm(place: Path, tmp_path: Path) -> None:
    tuned = '[tuning]\ncandidates = [["epochs=1"], ["epochs=2"]]\n[[arm]]'
    study = tmp_path / "tuned.toml"
    study.write_text((place / "both.toml").read_text().replace("[[arm]]", tuned, 1))
    found = Planner(load_study(str(study)), tmp_path, {}).tuning_runs()
    assert {key: [run.task.recipe.teacher for run in own] for key, own in found.items()} == {
        (model, candidate): [None, None] for model in (0, 1) for candidate in (0, 1)
    }
    assert [run.path for run in found[0, 1]] == [run.path for run in found[1, 1]]


def test_a_teacher_costs_a_forward_pass_of_each_image(place: Path, tmp_path: Path) -> None:
    runs = runs_of(place / "both.toml", tmp_path)
    plain, taught = (
        runs["tiny", "real+generated-drawn-x1", 0],
        runs["taught", "real+generated-drawn-x1", 0],
    )
    costs = {cost.model: cost for cost in study_costs([plain, taught], 6, 1)}
    work = multiply_adds(changed(), 6)
    assert plain.seen == taught.seen
    assert costs["tiny at 16 px"].multiply_adds == pytest.approx(3 * work * plain.seen)
    assert costs["taught at 16 px, with its teacher"].multiply_adds == pytest.approx(
        4 * work * plain.seen
    )


def test_a_teacher_needs_the_real_arm(place: Path, tmp_path: Path) -> None:
    study = tmp_path / "none.toml"
    text = (place / "alone.toml").read_text()
    study.write_text(text.replace('[[arm]]\nkind = "real"\n', "", 1))
    with pytest.raises(UserError, match='the first arm must be of kind "real"') as refused:
        load_study(str(study))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.usefixtures("_worker_forks")
def test_a_taught_study_runs_resumes_and_says_who_taught(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "out"
    run_study(str(place / "both.toml"), out=out, workers=1, dry_run=True)
    assert "in all 12 trainings" in capsys.readouterr().out
    run_study(str(place / "both.toml"), out=out, workers=1, as_json=True)
    runs = runs_of(place / "both.toml", out)
    assert sorted(out.glob("runs/**/*.json")) == sorted({run.path for run in runs.values()})
    for (model, arm, seed), run in runs.items():
        result, teacher = read_result(run.path), runs["tiny", "real", seed].save
        assert teacher is not None
        if model == "taught" and "generated" in arm:
            assert result.subject["teacher_sha256"] == sha256_file(teacher)
            assert result.protocol["teacher"] == {"weight": 0.4, "temperature": 2.0}
        else:
            assert "teacher_sha256" not in result.subject
        # a teacher may have seen real images
        assert result.values["cas"] == (model == "tiny" and arm == "generated-drawn-x1")
    report = StudyReport.model_validate_json((out / "report.json").read_text())
    rows = {(row.model, row.arm): row for row in report.rows}
    assert rows["taught", "real"].results == rows["tiny", "real"].results
    taught = rows["taught", "real+generated-drawn-x1"]
    assert len(set(taught.teachers)) == 2
    assert taught.difference is not None
    assert not rows["tiny", "real+generated-drawn-x1"].teachers
    said = "also learn what the real arm's classifier of the same seed says"
    assert (out / "report.md").read_text().count(said) == 1
    before = json.loads((out / "report.json").read_text())["rows"]
    student, teacher = runs["taught", "generated-drawn-x1", 3], runs["tiny", "real", 3]
    weights = sha256_file(teacher.save) if teacher.save else ""
    for path in (student.path, teacher.path.with_suffix(".safetensors")):
        path.unlink()
    run_study(str(place / "both.toml"), out=out, workers=1, dry_run=True)
    assert "in all 2 trainings" in capsys.readouterr().out
    run_study(str(place / "both.toml"), out=out, workers=1)
    assert read_result(student.path).subject["teacher_sha256"] == weights
    assert json.loads((out / "report.json").read_text())["rows"] == before
