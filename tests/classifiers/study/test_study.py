"""run-study: what a study plans, refuses, trains, resumes and reports; its statistics."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest, t, ttest_rel

from builder.builds.run import Outcome, RunSettings
from builder.cluster.cluster import ClusterOptions
from builder.cluster.worker import Failure
from builder.making import Wanted
from cards.measured.result_folder import read_folder
from classifiers.recipes.recipe import load_recipe
from classifiers.run_study import run_study
from classifiers.study.cost import PROBE_STEPS, multiply_adds, study_costs
from classifiers.study.findings import comparisons, findings
from classifiers.study.plan import Planner
from classifiers.study.releases import make_releases, missing_releases
from classifiers.study.report_model import Arm
from classifiers.study.study_file import BUILTIN, as_record, load_study, needed_per_class
from classifiers.study.study_file import Arm as AskedArm
from classifiers.training.bare_step import BareStep
from classifiers.training.class_verdicts import class_rows, confusions, name_ambiguity
from classifiers.training.outcomes import Outcomes, accuracy
from classifiers.training.paired_difference import difference
from release.commands.toml_recipes import recipe_names_in
from release.errors import UserError
from release.layout.manifest import read_manifest
from release.lease import claimed
from release.results.statistics import paired_p, wilson
from tests.in_process import InProcess
from tests.sets.shapes import changed, make_images, recipe_toml, write_release

NAMES = [("w0", "zero"), ("w1", "one"), ("w2", "two")]


def outcomes(correct: np.ndarray, labels: np.ndarray) -> Outcomes:
    """Predictions that are right where `correct` bool[S,N] says, else the next class."""
    first = np.where(correct, labels, (labels + 1) % 3)
    top = np.stack([first, (first + 1) % 3], axis=2)
    ids = tuple(f"i{i}" for i in range(len(labels)))
    return Outcomes(tuple(range(len(correct))), ids, labels, top)


def drawn(rates: list[list[float]], n: int, seed: int) -> Outcomes:
    """Three classes of n images each; rates[s][c]: how often seed s is right in class c."""
    labels = np.repeat(np.arange(3), n)
    rng = np.random.default_rng(seed)
    return outcomes(rng.random((len(rates), 3 * n)) < np.array(rates)[:, labels], labels)


# Statistics


def test_wilson_interval_of_a_mean_over_seeds() -> None:
    low, high = wilson(np.array([0.81, 0.5]), np.array([100, 7]))
    found = binomtest(81, 100).proportion_ci(0.95, method="wilson")
    assert (low[0], high[0]) == pytest.approx((found.low, found.high))
    assert low[1] < 0.5 < high[1]


def test_difference_is_paired_by_seed_and_by_image() -> None:
    real = drawn([[0.8, 0.7, 0.9]] * 3, 200, 0)
    other = drawn([[0.7, 0.7, 0.6]] * 3, 200, 1)
    found = difference(real, other)
    by_seed = [accuracy(o, 1)["by_seed"] for o in (real, other)]
    pairs = [list(values.values()) for values in by_seed]
    assert found["value"] == pytest.approx(np.mean(pairs[1]) - np.mean(pairs[0]))
    test = ttest_rel(pairs[1], pairs[0])
    ends = test.confidence_interval(0.95)
    assert found["over_seeds"] == pytest.approx([ends.low, ends.high])
    assert found["p_seeds"] == pytest.approx(test.pvalue)
    assert found["over_images"][1] < 0
    assert found["over_classes"][0] < found["value"] < found["over_classes"][1]
    same = difference(real, real)
    assert (same["value"], same["over_images"], same["p_seeds"]) == (0, [0, 0], 1)
    with pytest.raises(UserError, match="cannot be paired"):
        difference(real, replace(other, seeds=(0, 1, 5)))
    with pytest.raises(UserError, match="different images"):
        difference(real, replace(other, image_ids=other.image_ids[::-1]))


def test_classes_are_named_only_when_told_apart_from_chance() -> None:
    real = drawn([[0.8, 0.7, 0.5]] * 3, 300, 0)
    other = drawn([[0.6, 0.7, 0.8]] * 3, 300, 1)
    rows = class_rows(real, other, NAMES)
    assert [row["verdict"] for row in rows] == ["harmed", "", "helped"]
    for row in rows:
        assert max(row["p_images"], row["p_seeds"]) <= row["p_adjusted"]
    assert all(row["other_interval"][0] < row["other"] < row["other_interval"][1] for row in rows)
    one = class_rows(drawn([[0.8, 0.7, 0.5]], 300, 0), drawn([[0.6, 0.7, 0.8]], 300, 1), NAMES)
    gained, lost = one[0]["gained"], one[0]["lost"]
    assert one[0]["p_images"] == binomtest(min(gained, lost), gained + lost).pvalue
    assert one[0]["p_seeds"] is None


def test_seeds_that_agree_by_rounding_are_no_proof() -> None:
    """A class of 50 images has accuracies in steps of 2%: equal differences come by chance."""
    alike = np.full(3, 0.02)
    assert (p := paired_p(alike, 50)) > 0.05
    assert p == pytest.approx(2 * t.sf(0.02 / (0.02 / 6**0.5 / 3**0.5), 2))
    assert paired_p(np.zeros(3), 50) == 1
    assert paired_p(np.array([0.2]), 50) is None
    apart = np.array([0.3, 0.1, 0.26])
    assert paired_p(apart, 50) == pytest.approx(ttest_rel(apart, np.zeros(3)).pvalue)


def test_two_seeds_name_no_class() -> None:
    labels = np.repeat(np.arange(3), 50)
    real = outcomes(np.ones((2, 150), bool), labels)
    wrong = np.ones((2, 150), bool)
    wrong[:, :50] = False
    assert not any(row["verdict"] for row in class_rows(real, outcomes(wrong, labels), NAMES))


def test_chance_in_images_and_in_seeds_names_hardly_a_class() -> None:
    rng = np.random.default_rng(0)
    named = []
    for spread in (0.0, 0.08):  # of a class's accuracy from one training to the next
        for study in range(20):
            arms = [
                drawn((0.7 + spread * rng.standard_normal((3, 3))).tolist(), 200, 2 * study + i)
                for i in range(2)
            ]
            named += [bool(row["verdict"]) for row in class_rows(*arms, NAMES)]
    assert len(named) == 120
    assert sum(named) <= 6


def test_confusions_name_the_pairs_that_changed() -> None:
    labels = np.repeat(np.arange(3), 10)
    real = outcomes(np.ones((2, 30), bool), labels)
    wrong = np.ones((2, 30), bool)
    wrong[:, 10:14] = False
    (pair,) = confusions(real, outcomes(wrong, labels), NAMES)
    assert pair == {"true": "one", "predicted": "two", "baseline": 0.0, "other": 4.0}


def test_ambiguous_names_are_near_each_other() -> None:
    found = name_ambiguity(["crane", "a crane", "teapot", "Siberian husky"])
    assert found[0]["nearest"] == "a crane"
    assert found[0]["similarity"] > found[2]["similarity"]


def arm(kind: str, times: float, value: float, interval: list[float], **other: object) -> Arm:
    where = {"model": "m", "resolution": 32, "size": "50", "generated": "g", "budget": "epochs"}
    change = {"value": value, "over_seeds": interval, "over_images": interval}
    sizes = {"regimes": [], "images": 1, "steps": 1, "seeds": [0]}
    reached = {"top1": {"mean": 0.5, "std": None, "n": 300}, "difference": change}
    own = {"arm": kind, "kind": kind, "times": times}
    return Arm.model_validate({**where, **sizes, **reached, **own, **other})


def test_findings_are_answered_by_their_intervals() -> None:
    rows = [
        arm("generated", 1, -0.1, [-0.12, -0.08]),
        arm("generated", 1, 0.1, [0.08, 0.12]),
        arm("real+generated", 1, 0.01, [-0.01, 0.03]),
    ]
    answers = [found.answer for found in findings(rows, {})]
    assert answers == ["reproduced", "not reproduced", "not significant"]


def test_generated_images_are_compared_with_repeated_ones_and_set_with_set() -> None:
    rates = {"real+g": 0.8, "real+h": 0.6, "repeated": 0.9}
    found = {name: drawn([[rate] * 3] * 3, 300, i) for i, (name, rate) in enumerate(rates.items())}
    rows = [
        arm("real+generated", 1, 0, [0, 0], arm="real+g"),
        arm("real+generated", 1, 0, [0, 0], arm="real+h", generated="h"),
        arm("real+generated", 1, 0, [0, 0], arm="real+g-steps", budget="steps"),
        arm("real+generated", 3, 0, [0, 0], arm="real+h-x3", generated="h"),
        arm("real-repeated", 1, 0, [0, 0], arm="repeated", generated=None),
    ]
    answers = comparisons(rows, {("m", 32, "50", name): own for name, own in found.items()})
    control = "real + generated is above the same real images visited as often"
    assert [(a.question, a.generated, a.answer) for a in answers] == [
        (control, "g", "below"),
        (control, "h", "below"),
        ("g is above h", "g", "above"),
    ]
    expected = difference(found["repeated"], found["real+g"])
    assert answers[0].difference == expected["value"]
    assert answers[0].content()["over_seeds"] == expected["over_seeds"]


# What a study plans and refuses


def test_builtin_studies_plan_and_their_recipes_exist() -> None:
    names = recipe_names_in(BUILTIN)
    assert names == [
        "fashion-mnist",
        "fashion-mnist-long",
        "fashion-mnist-ways",
        "imagenet",
        "minutes",
    ]
    counts = {}
    for name in names:
        study = load_study(name)
        runs = Planner(study, Path("out"), {}, placed=False).runs()
        counts[name] = len(runs)
        assert len({(r.model, r.size, r.arm, r.seed) for r in runs}) == len(runs)
    assert counts["minutes"] == 42
    assert counts["imagenet"] == 3 * (12 * 3 + 3 * 9 - 1 + 2)
    imagenet = load_study("imagenet")
    for times in (1.0, 2.2, 9.0):
        arms = (imagenet.arms[0], AskedArm(kind="real+generated", times=(times,)))
        study = imagenet.model_copy(update={"arms": arms})
        taken = round(times * 1_281_167 / 1000)  # by --times with all real images
        assert needed_per_class(study, study.generated[0], "all") == taken
        assert needed_per_class(study, study.generated[0], 100) == round(times * 100)


def test_a_study_is_planned_once_and_anew_for_what_tuning_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planner = Planner(load_study("minutes"), Path("out"), {}, placed=False)
    runs = planner.runs()
    monkeypatch.setattr(Planner, "_run", lambda *_: pytest.fail("plans again"))
    assert planner.runs() == runs
    monkeypatch.undo()
    changed = replace(planner, changes={0: ("learning_rate=0.5",)}).runs()
    rates = {run.task.recipe.learning_rate for run in changed if run.model == runs[0].model}
    assert rates == {0.5}


def test_budgets_and_control_see_what_they_say() -> None:
    study = load_study("minutes")
    runs = {
        r.arm: r
        for r in Planner(study, Path("out"), {}, placed=False).runs()
        if r.seed == 0 and r.model == "fashion-mnist-small"
    }
    real, mixed = runs["real"], runs["real+generated-whole-x3"]
    assert (real.images, mixed.images) == (500, 2000)
    assert runs["real+generated-whole-x3-equal-steps"].steps == real.steps
    assert runs["real-repeated-x3"].steps == mixed.steps == 125
    assert runs["real-repeated-x3"].task.weights == (4,)
    assert runs["generated-whole-x1"].task.per_class == 50
    costs = study_costs([real, mixed], 10, 1)
    assert costs[0].images == real.seen + mixed.seen
    work = multiply_adds(load_recipe("fashion-mnist-small"), 10)
    assert costs[0].multiply_adds == pytest.approx(3 * work * costs[0].images)
    assert costs[0].hours is not None
    assert 0 < costs[0].hours < 1


def test_a_classifier_s_cost_is_of_all_sizes_whatever_their_epochs() -> None:
    study = load_study("fashion-mnist-long")
    runs = Planner(study, Path("out"), {}, placed=False).runs()
    assert len({run.task.recipe.epochs for run in runs}) == 2
    (cost,) = study_costs(runs, 10, 1)
    assert cost.runs == len(runs) == 30


def test_one_long_step_is_the_pace_and_progress_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Planner(load_study("minutes"), Path("out"), {}, placed=False).runs()[:1]
    monkeypatch.setattr("classifiers.study.cost.PROBE_S", 1e9)  # however busy the machine is
    steps: list[int] = []
    called = BareStep.__call__
    monkeypatch.setattr(
        BareStep, "__call__", lambda *given: steps.append(len(given[1])) or called(*given)
    )
    study_costs(runs, 10, 1)
    assert len(steps) == 1 + PROBE_STEPS
    assert not capsys.readouterr().err
    monkeypatch.setattr("classifiers.study.cost.PROBE_S", 1e-9)
    (cost,) = study_costs(runs, 10, 1, quiet=False)
    assert len(steps) == 1 + PROBE_STEPS + 2
    assert cost.hours
    assert "timing here: 1 of 1 classifiers" in capsys.readouterr().err


def test_epochs_of_a_size_stand_in_for_the_recipes(tmp_path: Path) -> None:
    text = (BUILTIN / "minutes.toml").read_text()
    path = tmp_path / "short.toml"
    path.write_text(text.replace("sizes = [50]", "sizes = [50, 100]\nepochs = { 50 = 4 }"))
    runs = Planner(load_study(str(path)), Path("out"), {}, placed=False).runs()
    epochs = {(r.size, r.task.recipe.epochs, r.steps) for r in runs if r.arm == "real"}
    assert epochs == {("50", 4, 16), ("100", 8, 62)}
    path.write_text(text.replace("sizes = [50]", "sizes = [50]\nepochs = { 500 = 4 }"))
    with pytest.raises(UserError, match="epochs of size '500'; the sizes are 50"):
        load_study(str(path))


STUDY = """
name = "shapes"
sizes = [4]
seeds = [0, 1]
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
[[arm]]
kind = "real"
[[arm]]
kind = "generated"
[[arm]]
kind = "real+generated"
times = [1, 2]
budgets = ["epochs", "steps"]
[[arm]]
kind = "real-repeated"
times = [2]
"""


TUNED = 'tuning = {candidates = [["epochs=1"], ["epochs=2"]]}'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    splits = {"train": make_images(10, 1), "test": make_images(6, 2)}
    write_release(folder / "shapes-real", splits)
    write_release(folder / "shapes-16", {"train": make_images(20, 3)}, kind="synthetic")
    (folder / "tiny.toml").write_text(recipe_toml(changed(epochs=20)))
    (folder / "shapes.toml").write_text(STUDY.format(place=folder))
    return folder


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('train_split = "fit"', 'test_split = "tuning"', "report on a split that no training"),
        (
            "[[arm]]",
            '[tuning]\nsplit = "test"\ncandidates = [["a=1"], ["a=2"]]\n[[arm]]',
            "refused",
        ),
        ('kind = "real"\n', 'kind = "real-repeated"\n', 'first arm must be of kind "real"'),
        ("times = [1, 2]", "times = [10]", "less than or equal to 9"),
        ("times = [1, 2]", 'sets = ["x"]', "unknown generated set 'x'; known: drawn"),
        ("sizes = [4]", "size = [4]", "size"),
        ("times = [1, 2]", "times = []", "times"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds 0 twice"),
        ("sizes = [4]", "sizes = [11]", "sizes: 11 is more than real.per_class = 10"),
        (
            "[[arm]]",
            '[[generated]]\nname = "drawn"\nrelease = "other"\n[[arm]]',
            "name 'drawn' twice",
        ),
        ("sizes = [4]", f"sizes = [4]\nresolutions = [16, 32]\n{TUNED}", "takes one of the resolu"),
        ("sizes = [4]", f"sizes = [4]\nepochs = {{4 = 1}}\n{TUNED}", "cannot choose epochs"),
        (
            "sizes = [4]",
            "sizes = [4]\n" + TUNED.replace("epochs=1", "teacher.weight=0.5"),
            "cannot choose a teacher: settings are chosen by the real arm",
        ),
    ],
)
def test_a_study_that_would_mislead_is_refused(
    place: Path, tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(STUDY.format(place=place).replace(before, after, 1))
    with pytest.raises(UserError, match=message):
        load_study(str(path))
    with pytest.raises(
        UserError, match="unknown study 'x'; known: fashion-mnist, fashion-mnist-long, fa"
    ):
        load_study("x")


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("classes = 7", r"real\.classes = 7: .*shapes-real has 6"),
        (
            "per_class = 20",
            "per_class = 20: in .*shapes-real a class has 8 images of fit, on avera",
        ),
        ("per_class = 5", "per_class = 5: in .*shapes-real a class has 8 images"),
    ],
)
def test_a_study_of_another_real_set_than_it_says_is_refused(
    place: Path, tmp_path: Path, after: str, message: str
) -> None:
    path, line = tmp_path / "other.toml", "classes = 6" if "classes" in after else "per_class = 10"
    path.write_text(STUDY.format(place=place).replace(line, after))
    with pytest.raises(UserError, match=message):
        run_study(str(path), tmp_path / "out", dry_run=True)


def test_a_release_lacks_what_its_rarest_class_lacks(place: Path, tmp_path: Path) -> None:
    images = make_images(20, 3)
    rows = np.flatnonzero((images.labels != 2) | (np.arange(len(images)) < 40))
    few = int((images.labels[rows] == 2).sum())
    write_release(tmp_path / "uneven", {"train": images.take(rows)}, kind="synthetic")
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(place=place).replace(f"{place}/shapes-16", f"{tmp_path}/uneven"))
    (missing,) = missing_releases(load_study(str(path)))
    assert (missing.have, missing.wanted) == (few, 8)
    assert few < 8


def test_workers_find_releases_from_any_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(place=place).replace(f'release = "{place}/', 'release = "'))
    (run, *_) = Planner(load_study(str(path)), tmp_path / "out", {}).runs()
    monkeypatch.chdir(tmp_path)
    assert len(run.task.read().training) == 24


def test_classifiers_are_kept_where_a_study_says_so(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(place=place))
    study = load_study(str(path))
    kept = study.model_copy(update={"keep_classifiers": True})
    for found, wanted in ((study, False), (kept, True)):
        for run in Planner(found, tmp_path / "out", {}).runs():
            assert run.save == (run.path.with_suffix(".safetensors") if wanted else None)
        assert ("keep_classifiers" in as_record(found)) == wanted  # reports of before stay
    assert load_study("imagenet").keep_classifiers


@pytest.mark.usefixtures("_worker_forks")
def test_a_study_runs_resumes_and_reports(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    text = STUDY.format(place=place).replace(
        "[[arm]]",
        '[tuning]\ncandidates = [["learning_rate=1e-6"], ["learning_rate=1e-2"]]\n[[arm]]',
        1,
    )
    (place / "tuned.toml").write_text(text)
    run_study(str(place / "tuned.toml"), out=out, workers=1, as_json=True)
    assert json.loads(capsys.readouterr().out)["report"] == str(out / "report.json")
    document = json.loads((out / "report.json").read_text())
    assert next(iter(document.items())) == ("kind", "study")
    assert document["chosen_settings"]["tiny"] == ["learning_rate=1e-2"]
    arms = {row["arm"]: row for row in document["rows"]}
    assert len(arms) == 7
    assert arms["real"]["images"] == 24
    assert arms["real-repeated-x2"]["steps"] == arms["real+generated-drawn-x2"]["steps"]
    assert arms["real+generated-drawn-x2-equal-steps"]["steps"] == arms["real"]["steps"]
    assert {row["top1"]["n"] for row in document["rows"]} == {36}
    assert document["test"]["split"] == "test"
    assert all((out / name).is_file() for row in document["rows"] for name in row["results"])
    assert not any(Path(name).is_absolute() for row in document["rows"] for name in row["results"])
    compared = {(report["arm"], report["against"]) for report in document["classes"]}
    assert {arm for arm, against in compared if against == "real"} == set(arms) - {"real"}
    assert ("real+generated-drawn-x2", "real-repeated-x2") in compared
    assert "## Findings of Azizi et al. 2023" in (out / "report.md").read_text()
    found = read_folder(out)
    assert [study.study.name for study in found.studies] == [document["study"]["name"]]
    assert found.measurements == ()  # the report stands for its runs
    for name in ("scaling.png", "classes.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    paths = sorted(out.glob("runs/**/*.json"))
    assert len(paths) == 2 * (7 + 2)
    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    paths[1].with_suffix(".parquet").unlink()
    run_study(str(place / "tuned.toml"), out=out, workers=1, dry_run=True)
    assert (
        "in all 2 trainings" in capsys.readouterr().out
    )  # tuning is done, and what it chose known
    run_study(str(place / "tuned.toml"), out=out, workers=1)
    after = {path: path.stat().st_mtime_ns for path in sorted(out.glob("runs/**/*.json"))}
    assert set(after) == set(before)
    assert [path for path in paths if after[path] != before[path]] == paths[:2]
    again = json.loads((out / "report.json").read_text())
    assert again["rows"] == document["rows"]


def test_two_studies_in_one_folder_do_not_meet(place: Path, tmp_path: Path) -> None:
    with claimed(tmp_path / "out"), pytest.raises(UserError, match="another command is at work"):
        run_study(str(place / "shapes.toml"), out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_dry_run_says_what_it_takes_and_makes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nothing"
    run_study(str(place / "shapes.toml"), out=out, workers=2, dry_run=True)
    told = capsys.readouterr().out
    assert "in all 14 trainings" in told
    assert "on 2 workers" in told
    assert "FLOPs" in told
    assert "on one NVIDIA H100 SXM 80 GB at 40% of its peak" in told
    assert not out.exists()
    with pytest.raises(UserError, match="go with --dry-run"):
        run_study(str(place / "shapes.toml"), out=out, gpu="h100")
    with pytest.raises(UserError, match="batch = 32 does not divide over 3 processes"):
        run_study(str(place / "shapes.toml"), out=out, processes=3, dry_run=True)


@pytest.mark.parametrize("recipe", ["", 'recipe = "fashion-mnist"', 'recipe = "fashion"'])
def test_generated_sets_are_checked_before_any_is_made(
    place: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three releases: one is there, one is to be made, and the last is what `recipe` says."""
    sets = f'''
[[generated]]
name = "first"
release = "{tmp_path}/first"
recipe = "fashion-mnist-fast"
[[generated]]
name = "last"
release = "{tmp_path}/last"
{recipe}
[[arm]]'''
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(place=place).replace("[[arm]]", sets, 1))
    if recipe.endswith('"fashion"'):
        with pytest.raises(UserError, match="unknown recipe 'fashion'"):
            run_study(str(path), dry_run=True)
        return
    run_study(str(path), dry_run=True, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    first, last = plan["releases"]
    assert first["release"] == f"{tmp_path}/first"
    assert (last["have"], last["wanted"]) == (0, 8)
    trainings, built = plan["gpu"][0], plan["gpu"][-1]
    assert trainings["flops"] == 2 * plan["costs"][0]["multiply_adds"]
    assert built["what"].endswith(" images of " + (last["source"] or "fashion-mnist-fast"))
    assert built["hours"] is None  # of a small U-Net nothing is counted
    if last["source"] is None:
        with pytest.raises(UserError, match=r"last: 0 of 8 images a class .* names no recipe"):
            run_study(str(path), out=tmp_path / "out")
        assert not (tmp_path / "first").exists()
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("failed", "made", "message"),
    [
        (1, 8, r"built lacks shards that kept failing, .* see \S+/quarantine"),
        (0, 6, r"built has 6 images of its rarest class, not 8: slots that its accept rule left"),
        (0, 8, None),
    ],
)
def test_no_arm_trains_on_fewer_images_than_planned(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failed: int,
    made: int,
    message: str | None,
) -> None:
    built = tmp_path / "built"

    def build(wanted: Wanted, release: Path, settings: RunSettings, *, quiet: bool) -> Outcome:
        assert (release, wanted.per_class, wanted.chosen) == (built, 8, wanted.classes)
        assert (settings.cluster, settings.allow_mixed, quiet) == (ClusterOptions(), False, False)
        write_release(built, {"train": make_images(made, 3)}, kind="synthetic")
        failures = tuple(Failure(f"{i}", "exception", "no luck") for i in range(failed))
        return Outcome((), failures, (), ())

    monkeypatch.setattr("classifiers.study.releases.build_wanted", build)
    path = tmp_path / "study.toml"
    named = f'release = "{built}"\nrecipe = "fashion-mnist-fast"'
    path.write_text(STUDY.format(place=place).replace(f'release = "{place}/shapes-16"', named))
    study = load_study(str(path))
    if message is None:
        make_releases(study, missing_releases(study), ClusterOptions())
        return
    with pytest.raises(UserError, match=message):
        make_releases(study, missing_releases(study), ClusterOptions())


def test_what_a_study_lacks_is_imported_and_built_without_a_word_on_stdout(
    tmp_path: Path,
    stand_in_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the very functions of build-dataset: the same releases, resumed and told the same way."""
    InProcess(monkeypatch)
    images = make_images(3, 1)
    for split in ("train", "test"):
        for i, label in enumerate(images.labels):
            folder = tmp_path / "shapes" / split / images.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.images[i]).save(folder / f"{i}.png")
    text = STUDY.format(place=tmp_path).replace("sizes = [4]", "sizes = [1]")
    text = text.replace("per_class = 10", "per_class = 3")
    text = text.replace('source = "shapes"', f'source = "{tmp_path}/shapes"\nviews = [16, 8]')
    text = text.replace('name = "drawn"', f'name = "drawn"\nrecipe = "{stand_in_recipe}"')
    path = tmp_path / "study.toml"
    path.write_text(text)
    study = load_study(str(path))
    make_releases(study, missing_releases(study), ClusterOptions())
    told = capsys.readouterr()
    assert told.out == ""
    assert "images" in told.err
    assert missing_releases(study) == []
    assert list(read_manifest(tmp_path / "shapes-real").splits()) == ["original", "8", "16"]
    assert read_manifest(tmp_path / "shapes-16").rows("32", "train") == 3 * 2
