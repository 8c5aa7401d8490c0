"""select-sampler and select-checkpoint: the right point is chosen, and nothing is made twice."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from builder.planning.recipe import load_recipe
from cards.measured.result_folder import read_folder
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.pixel_unet.checkpoint import save_checkpoint
from metrics.select_checkpoint import select_checkpoint
from metrics.select_sampler import select_sampler
from metrics.selection import selection_run
from metrics.selection.cas import regret
from metrics.selection.cost import Work
from metrics.selection.selection import require_tuning_unseen
from metrics.selection.selection_run import SelectionRun, further, less_accurate, runner_up
from metrics.selection.sweep import parse_grid, sampler_settings, sweep_points
from release.errors import UserError
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest
from release.results.result import read_result
from release.results.statistics import rank_correlation
from tests.conftest import FACTS
from tests.forked_commands import run
from tests.models.tiny_network import tiny_network
from tests.sets.painter import paint
from tests.sets.shapes import changed, recipe_toml
from tests.sets.small_releases import CLASSES, write_release

PER_CLASS = 6
RECIPE = """# The painter's recipe.
name = "painter"
description = "bright quarters"
classes = "{classes}"
dataset = "shapes"
regime = "A"
license = "mit"

[shard]
classes = 4
indices = 3

[[stage]]
resolution = 8
generator = "tests.sets.painter"
checkpoint = "8"
batch = 6
sampler = {{ steps = 2, guidance = 1.25 }}

[[stage]]
resolution = 16
generator = "tests.sets.painter"
checkpoint = "16"
batch = 6
sampler = {{ steps = 2 }}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/, recipe.toml and classifier.toml."""
    folder = tmp_path_factory.mktemp("selection")
    for side in (8, 16):
        images = [paint(i % 4, 10_000 + i, side, 10) for i in range(400)]
        write_release(
            folder / f"real{side}", {"train": [np.stack(images)]}, kind="real", dataset="shapes"
        )
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE.format(classes=folder / "classes.csv"))
    classifier = changed(model_args={"channels": [16, 16, 16, 16], "stem_width": 8})
    (folder / "classifier.toml").write_text(recipe_toml(classifier))
    return folder


def called(place: Path, *more: str | Path, out: str, **environment: str) -> Any:
    return run(
        ["select-sampler", "--recipe", place / "recipe.toml", "--real", place / "real16",
         "--out", place / out, "--stage", "16", "--per-class", str(PER_CLASS),
         "--classifier", place / "classifier.toml", "--seeds", "0,1", "--workers", "1",
         "--cache", place / "cache", "--device", "cpu", "--json", *more],
        **environment,
    )  # fmt: skip


def sweep(place: Path, *more: str | Path, out: str = "sweep", **environment: str) -> Any:
    result = called(place, *more, out=out, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


GRID = ("--guidance", "1.25,2", "--noise-augmentation", "0,0.2", "--short-list", "2")


@pytest.fixture(scope="module")
def swept(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = sweep(
        place, *GRID, "--cas-per-class", "12", PAINTER_LOG=str(place / "log")
    )
    return found


def made(log: Path) -> Counter[str]:
    """Images by resolution."""
    counts: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        kind, resolution, number = line.split()
        if kind == "batch":
            counts[resolution] += int(number)
    return counts


def test_the_settings_that_make_the_best_images_are_chosen(swept: dict[str, Any]) -> None:
    assert swept["chosen"] == "ddpm-w1.25-g0-s2-a0"
    assert swept["split"] == "tuning"
    ranked = sorted(swept["points"], key=lambda row: row["fd"]["value"])
    assert [row["settings"]["guidance"] for row in ranked] == [1.25, 1.25, 2, 2]
    assert [row["cas"] is not None for row in ranked] == [True] * 2 + [False] * 2
    for row in swept["points"]:
        assert row["fd"]["n"] == 4 * PER_CLASS
        assert row["fd"]["reference_n"] == 40
    assert swept["regret_of_fd"]["seeds"] == 2
    assert swept["correlation_fd_cas"]["n"] == 2
    assert swept["runner_up"]["name"] == ranked[1]["name"]
    assert swept["cas_protocol"]["per_class"] == 12


def test_the_leaderboard_reads_the_sweep_alone(place: Path, swept: dict[str, Any]) -> None:
    found = read_folder(place / "sweep")
    assert [sweep.chosen for sweep in found.selections] == [swept["chosen"]]
    assert found.datasets == {"shapes"}
    assert (found.measurements, found.manifests) == ((), ())


def test_each_image_is_made_once_and_each_model_loaded_once_a_worker(
    place: Path,
    swept: dict[str, Any],  # noqa: ARG001
) -> None:
    lines = (place / "log").read_text().splitlines()
    loads = Counter(line for line in lines if line.startswith("load"))
    assert made(place / "log") == {"8": 4 * 12 + 12, "16": 4 * 24 + 2 * 24 + 12}
    # once for the calibration, then 8, 16 px for the points and 8, 16 px for CAS
    assert max(loads.values()) <= 3


def test_points_share_the_parents_files(place: Path, swept: dict[str, Any]) -> None:
    parent = place / "sweep/parent/8"
    for row in swept["points"]:
        release = place / "sweep/points" / row["name"]
        manifest = read_manifest(release)
        assert manifest.rows("8", "train") == manifest.rows("16", "train") == 4 * PER_CLASS
        for path in (release / "8").iterdir():
            assert path.samefile(parent / path.name)


def test_a_finished_sweep_makes_nothing_and_says_the_same(
    place: Path, swept: dict[str, Any]
) -> None:
    log = place / "again.log"
    log.touch()
    assert sweep(place, *GRID, "--cas-per-class", "12", PAINTER_LOG=str(log)) == swept
    assert log.read_text() == ""


def test_pictures_and_the_recipe(place: Path, swept: dict[str, Any]) -> None:
    for name in ("curves.png", "heat-map.png", "cas.png"):
        with Image.open(place / "sweep" / name) as picture:
            assert min(picture.size) > 300
    path = Path(swept["recipe_file"])
    chosen, original = load_recipe(str(path)), load_recipe(str(place / "recipe.toml"))
    assert chosen.stages[0] == original.stages[0]
    assert chosen.stages[1].sampler == SamplerConfig(steps=2, guidance=1.25)
    assert chosen.stages[1].sampler_source.startswith("select-sampler: Chosen among 4 points at")
    assert "CAS " in chosen.stages[1].sampler_source
    assert chosen.model_copy(update={"name": original.name, "stages": ()}) == (
        original.model_copy(update={"stages": ()})
    )
    text = path.read_text()
    assert "# Chosen among 4 points" in text
    assert "# The painter's recipe." in text


def test_a_wider_grid_makes_only_what_is_new(place: Path, swept: dict[str, Any]) -> None:
    log = place / "wider.log"
    grid = ("--guidance", "1.25,2,3", "--noise-augmentation", "0,0.2", "--short-list", "0")
    wider = sweep(place, *grid, PAINTER_LOG=str(log))
    old = {row["name"]: row["fd"] for row in swept["points"]}
    assert {row["name"]: row["fd"] for row in wider["points"] if row["name"] in old} == old
    assert len(wider["points"]) == 6
    assert made(log)["16"] == 2 * 24 + 12  # and a calibration batch, twice
    assert wider["chosen_by"] == "fd"


def test_cas_is_of_the_tuning_split(place: Path, swept: dict[str, Any]) -> None:
    results = sorted((place / "sweep/results" / swept["chosen"]).glob("cas-*.json"))
    assert [path.name for path in results] == [f"cas-tiny-12-seed{s}.json" for s in (0, 1)]
    result = read_result(results[0])
    assert result.reference["split"] == "tuning"
    assert result.values["cas"]
    assert result.subject["train"][0]["images"] == 4 * 12


def test_a_cas_of_other_weights_of_a_later_stage_is_refused(
    place: Path, swept: dict[str, Any]
) -> None:
    """The distance tells of the stage in question alone."""
    shutil.copytree(place / "sweep", place / "other-sweep")
    release = place / "other-sweep/cas" / swept["chosen"]
    manifest = read_manifest(release)
    others = tuple(replace(shard, fingerprint="0" * 64) for shard in manifest.shards)
    replace(manifest, shards=others).write(release)
    found = called(place, *GRID, "--cas-per-class", "12", out="other-sweep")
    assert found.returncode == 2
    said = f"{release} is of other weights or settings of that name; name another --out"
    assert said in found.stderr


def test_a_dry_run_tells_the_cost_and_makes_nothing(place: Path) -> None:
    answer = sweep(place, *GRID, "--dry-run", out="dry")
    assert answer["points"] == 4
    assert answer["cost"]["images"] == 24 + 4 * 24
    assert answer["cost"]["network_evaluations"] > answer["cost"]["images"]
    assert answer["cost"]["hours"] > 0
    assert answer["cost"]["megabytes"] > 0
    assert not (place / "dry").exists()


def test_a_batch_that_is_timed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    run = SimpleNamespace(
        selection=SimpleNamespace(classes=()), points=[SimpleNamespace(recipe=None)]
    )
    run._remark = said.append
    monkeypatch.setattr(selection_run, "measure", lambda *_: {})
    monkeypatch.setattr(selection_run, "cost_of", lambda *_: None)
    live = SimpleNamespace(cluster=SimpleNamespace(threads=lambda: 1))
    SelectionRun._cost(cast(Any, run), cast(Any, live), {8: Work(1, 1), 16: Work(1, 1)})
    assert said == ["calibrating up to 16 px on a worker: a batch a stage, thrown away"]


def refuse(place: Path, match: str, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "recipe": str(place / "recipe.toml"),
        "real": place / "real16",
        "out": place / "refused",
        "stage": 16,
        "short_list": 0,
    }
    with pytest.raises(UserError, match=match):
        select_sampler(**settings | changes)
    assert not (place / "refused").exists()


def test_bad_input(place: Path) -> None:
    refuse(place, "'test' is refused", split="test")
    refuse(place, "'x' is refused", test="x")
    refuse(place, "no stage at --stage 32", stage=32)
    refuse(place, "first of the chain", stage=8, noise_augmentation="0.1")
    refuse(place, "--guidance '1,b'", guidance="1,b")
    mismatch = "^--method ddim --gamma 0.3: gamma = 0.3 has no effect on ddim"
    refuse(place, mismatch, method="ddim", gamma="0.3")
    refuse(place, "^--gamma: .* not 1.5$", gamma="1.5")
    refuse(place, "^--method: .* not 'midpoint'$", method="midpoint")
    refuse(place, "--cas-stage 32: from stage 16 on, recipe painter makes 16 px", short_list=1,
           classifier="fashion-mnist-small", cas_stage=32)  # fmt: skip
    made = write_release(place / "made", {"train": [np.zeros((4, 16, 16, 3), np.uint8)]})
    refuse(place, "synthetic", real=made)
    images = np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), np.uint8)
    few = write_release(place / "few", {"train": [images]}, kind="real", dataset="shapes")
    refuse(place, "16:tuning is a tenth .* 1 here, and a distance takes at least 2", real=few)


def test_another_selection_in_the_folder_is_refused(
    place: Path,
    swept: dict[str, Any],  # noqa: ARG001
) -> None:
    command = ["select-sampler", "--recipe", place / "recipe.toml", "--real", place / "real16"]
    more = ["--out", place / "sweep", "--stage", "16", "--per-class", "7", "--short-list", "0"]
    result = run([*command, *more])
    assert result.returncode == 2
    assert "per_class was 6, now 7" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_checkpoint_that_saw_the_tuning_images_is_refused(place: Path, tmp_path: Path) -> None:
    stage = load_recipe(str(place / "recipe.toml")).stages[0]
    stage = stage.model_copy(update={"checkpoint": str(tmp_path)})
    require_tuning_unseen([stage])
    (tmp_path / "training.json").write_text('{"data": {"tuning_left_out": true}}')
    require_tuning_unseen([stage])
    (tmp_path / "training.json").write_text('{"data": {"tuning_left_out": false}}')
    with pytest.raises(UserError, match="--split fit"):
        require_tuning_unseen([stage])


# ---------------------------------------------------------------- checkpoints


def test_the_checkpoint_nearest_to_the_tuning_images_is_chosen(place: Path) -> None:
    """Steps 1 and 2 of two runs: their networks say x0 is 0.8, 0, 0.4 and -0.8 everywhere."""
    levels = {("one", 1): 0.8, ("one", 2): 0.0, ("two", 1): 0.4, ("two", 2): -0.8}
    prompts = (*(entry.prompt for entry in CLASSES), "")
    for (name, step), level in levels.items():
        network = tiny_network(prediction="x0", channels=3, prompts=prompts)
        output = network.unet.conv_out
        output.weight.data.zero_()
        output.bias.data.fill_(level)
        save_checkpoint(network, place / f"runs/{name}/checkpoints/{step}", torch.float16)
    text = (place / "recipe.toml").read_text()
    (place / "flat.toml").write_text(
        text.replace("tests.sets.painter", "pixel-unet", 1).replace(
            'checkpoint = "8"', f'checkpoint = "none"\nsha256 = "0"\n{FACTS}'
        )
    )
    command: list[str | Path] = [
        "select-checkpoint", place / "runs/one", place / "runs/two", "--recipe",
        place / "flat.toml", "--real", place / "real8", "--out", place / "chosen",
        "--per-class", "3", "--workers", "1", "--cache", place / "cache", "--device", "cpu",
        "--json",
    ]  # fmt: skip
    result = run(command)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    mean = float(np.mean(load_images(place / "real8", "8", "tuning").images)) / 127.5 - 1
    nearest = min(levels, key=lambda key: abs(levels[key] - mean))
    assert found["chosen"] == "{}-{:06d}".format(*nearest)
    assert [row["settings"] for row in found["points"]] == [
        {"run": name, "step": step} for name, step in levels
    ]
    chosen = load_recipe(found["recipe_file"]).stages
    assert chosen[0].checkpoint == str(place / "runs/{}/checkpoints/{}".format(*nearest))
    hashes = {row["name"]: row["stage"]["checkpoint_sha256"] for row in found["points"]}
    assert chosen[0].sha256 == hashes[found["chosen"]]
    assert chosen[1] == load_recipe(str(place / "flat.toml")).stages[1]
    assert (chosen[0].model, chosen[0].sampler_source) == (None, "")  # they were of other weights
    written = Path(found["recipe_file"]).read_text()
    assert chosen[0].generator == "pixel-unet"
    assert "The painter's recipe." not in written
    assert "bright quarters" not in written
    assert found["runner_up"]["name"] != found["chosen"]
    with Image.open(place / "chosen/curve.png") as picture:
        assert min(picture.size) > 300
    again = run(command)
    assert json.loads(again.stdout) == found
    shutil.rmtree(place / "chosen/points")  # as one may when disk is short
    (place / "runs/one/checkpoints/1").rename(place / "runs/one/checkpoints/0")
    (place / "runs/one/checkpoints/2").rename(place / "runs/one/checkpoints/1")
    (place / "runs/one/checkpoints/0").rename(place / "runs/one/checkpoints/2")
    other = run(command)
    assert other.returncode == 2
    assert "is of other weights or settings of that name" in other.stderr


def test_bad_runs(place: Path, tmp_path: Path) -> None:
    def refuse_runs(match: str, runs: list[Path]) -> None:
        with pytest.raises(UserError, match=match):
            select_checkpoint(
                runs,
                recipe=str(place / "recipe.toml"),
                real=place / "real8",
                out=tmp_path / "out",
            )

    refuse_runs("keeps no checkpoints", [tmp_path])
    for name, network in (("base", tiny_network()), ("sr", tiny_network(low_resolution=8))):
        save_checkpoint(network, tmp_path / name / "checkpoints/1", torch.float16)
    refuse_runs("several stages", [tmp_path / "base", tmp_path / "sr"])
    refuse_runs("same checkpoint", [tmp_path / "base", tmp_path / "base"])
    shutil.copytree(tmp_path / "base", tmp_path / "copy")
    refuse_runs("base/checkpoints/1 and .*copy/checkpoints/1 are the same checkpoint",
                [tmp_path / "base", tmp_path / "copy"])  # fmt: skip
    cut = tmp_path / "copy/checkpoints/1/stage.json"
    cut.write_bytes(cut.read_bytes()[:20])
    refuse_runs("stage.json cannot be read", [tmp_path / "copy"])


def test_a_training_record_that_was_cut_is_one_line(place: Path, tmp_path: Path) -> None:
    save_checkpoint(tiny_network(), tmp_path / "8", torch.float16)
    (tmp_path / "8/training.json").write_text('{"data": {"tun')
    stage = load_recipe(str(place / "recipe.toml")).stages[0]
    changes = {"generator": "pixel-unet", "checkpoint": str(tmp_path / "8")}
    with pytest.raises(UserError, match=r"training\.json is cut or damaged"):
        require_tuning_unseen([stage.model_copy(update=changes)])


# ---------------------------------------------------------------- numbers


def test_the_grid_is_every_combination_of_what_was_given(place: Path) -> None:
    recipe = load_recipe(str(place / "recipe.toml"))
    grid = parse_grid(recipe, 8, "ddpm", {"gamma": "1,0,0.3,0.3", "steps": "16,8"})
    points = sweep_points(recipe, 8, grid)
    assert [point.name for point in points] == [
        f"ddpm-w1.25-g{g}-s{s}-a0" for g in ("0", "0.3", "1") for s in (8, 16)
    ]
    samplers = [point.recipe.stages[0].sampler for point in points]
    assert samplers[3] == SamplerConfig(steps=16, guidance=1.25, gamma=0.3)
    assert all(point.recipe.stages[1] == recipe.stages[1] for point in points)
    assert sampler_settings(samplers[1]) == {"method": "ddpm", "steps": 16, "guidance": 1.25}


def accuracies(**by_seed: list[float]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "value": float(np.mean(v)),
            "n": 10_000,
            "by_seed": {str(i): x for i, x in enumerate(v)},
        }
        for name, v in by_seed.items()
    }


def test_regret_is_the_paired_difference_to_the_best() -> None:
    found = regret(accuracies(a=[0.5, 0.6, 0.7], b=[0.6, 0.7, 0.9]), "a")
    assert found["cas_winner"] == "b"
    assert found["value"] == pytest.approx(0.4 / 3)
    # t(2, 0.975) = 4.3027; deviation of 0.1, 0.1, 0.2 = 0.057735
    half = 4.30265 * 0.0577350 / 3**0.5
    assert found["interval"] == pytest.approx([0.4 / 3 - half, 0.4 / 3 + half], rel=1e-4)
    same = regret(accuracies(a=[0.5], b=[0.5]), "a")
    assert (same["value"], same["cas_winner"], same["interval"]) == (0, "a", None)


@pytest.mark.parametrize(
    ("second", "told_apart"), [([0.5, 0.6, 0.8], True), ([0.5, 0.7, 0.8], False)]
)
def test_the_runner_up_is_told_apart_over_paired_seeds(
    second: list[float], told_apart: bool
) -> None:
    cas = accuracies(a=[0.6, 0.7, 0.9], b=second, c=[0.1, 0.2, 0.2])
    found = runner_up(cas, "a", less_accurate)
    assert found is not None
    lost = regret({name: cas[name] for name in "ab"}, "b")
    assert (found["name"], found["worse_by"], found["interval"]) == (
        "b", lost["value"], lost["interval"]
    )  # fmt: skip
    assert found["told_apart"] is told_apart
    assert runner_up(accuracies(a=[0.5]), "a", less_accurate) is None


def test_a_distance_is_told_apart_by_the_interval_of_the_difference() -> None:
    near = {"value": 10.0, "interval": [7.0, 13.0]}
    for value, told_apart in ((14.0, False), (16.0, True)):
        other = {"value": value, "interval": [value - 4, value + 4]}
        found = runner_up({"a": near, "b": other}, "a", further)
        assert found is not None
        assert found["interval"] == pytest.approx([value - 15, value - 5])
        assert found["told_apart"] is told_apart


def test_rank_correlation_needs_three_points() -> None:
    x, y = [1.0, 2.0, 3.0, 5.0], [0.9, 0.8, 0.85, 0.1]
    assert rank_correlation(x, y)["spearman"] == pytest.approx(spearmanr(x, y).statistic)
    assert rank_correlation(x, y)["n"] == 4
    assert rank_correlation(x[:2], y[:2]) == {"spearman": None, "p": None, "n": 2}
    assert rank_correlation(x, [0.5] * 4)["spearman"] is None
