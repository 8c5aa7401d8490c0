"""The recipes of public models: what is printed, what is refused."""

import json
from pathlib import Path

import pytest

import builder.planning.gpu_memory
from builder.builds.build import plan_build
from builder.planning.gpu_memory import require_memory
from builder.planning.recipe import BUILTIN, StageRecipe, load_recipe
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.conftest import run

IMAGENET = sorted(path.stem for path in BUILTIN.glob("imagenet-*.toml"))
YOURS = [  # whose checkpoints a person trains
    name for name in IMAGENET if load_recipe(name).stages[0].checkpoint.startswith("runs/")
]
PUBLIC = [name for name in IMAGENET if name not in YOURS]
# What a person has to do for want of a network, by generator.
ADVICE = {
    "adm-256": "put it at",
    "adm-64": "put it at",
    "biggan": "put the file at",
    "deepfloyd-if": "hf auth login",
    "diffusers": "hf auth login",
    "dit": "hf auth login",
    "iddpm": "put it at",
    "jit": "put it at",
    "edm2": "put it at",
    "ldm": "put it at",
    "lightning-dit": "put it at",
    "mar": "put it at",
    "mean-flow": "put it at",
    "rae": "put it at",
    "repa": "put it at",
    "repa-e": "put it at",
    "repa-e-end-to-end": "put it at",
    "sit": "put it at",
    "var": "put it at",
}


def told(evaluations: int) -> str:
    return "one evaluation" if evaluations == 1 else f"{evaluations:,} evaluations"


def own_evaluations(stage: StageRecipe) -> int:
    """Of the network; those of a guide are counted apart."""
    sampler = stage.sampler
    return sampler.own_evaluations if stage.guide else sampler.network_evaluations


@pytest.mark.parametrize("name", IMAGENET)
def test_the_dry_run_of(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from builder.build_dataset import build_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # what a dry run sets for itself
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build_dataset(recipe=name, per_class=1200, dry_run=True)
    text = capsys.readouterr().out
    recipe = load_recipe(name)
    assert "1,000 classes x 1,200 = 1,200,000 images" in text
    for stage in recipe.stages:
        assert stage.model is not None
        assert stage.cost is not None
        for fact in (
            stage.checkpoint,
            f"licence: {stage.model.license}. Images: {stage.model.images}",
            " in all on one NVIDIA H100 SXM 80 GB at 40% of its peak",
            f"counted: {told(own_evaluations(stage))} of ",
            f"{stage.cost.memory_gib:g} GiB",
            stage.sampler_source,
        ):
            assert fact in text
    assert f"regime {recipe.regime}" in text


def test_the_dry_run_as_a_user_runs_it() -> None:
    result = run(["build-dataset", "--res", "1024", "--per-class", "1200", "--dry-run", "--json"])
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["images"] == 1_200_000
    assert [stage["resolution"] for stage in plan["stages"]] == [64, 256, 1024]
    assert all(stage["model"]["license"] and stage["device_hours"] for stage in plan["stages"])


@pytest.mark.parametrize("name", PUBLIC)
def test_without_a_network_the_model_is_one_line_that_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    recipe = load_recipe(name)
    with pytest.raises(UserError) as error:
        plan_build(recipe, recipe.stages, load_classes(recipe.classes), 1, tmp_path / "release")
    line = str(error.value)
    assert "\n" not in line
    assert recipe.stages[0].checkpoint in line
    assert ADVICE[recipe.stages[0].generator] in line
    assert "--recipe fashion-mnist" in line


@pytest.mark.parametrize("name", YOURS)
def test_a_checkpoint_that_was_not_trained_yet_is_one_line(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    told = f"{recipe.stages[0].checkpoint} is not a checkpoint .* that finetune-generator wrote"
    with pytest.raises(UserError, match=told):
        plan_build(recipe, recipe.stages, load_classes(recipe.classes), 1, tmp_path / "release")


def test_the_command_without_a_network_ends_in_one_line(tmp_path: Path) -> None:
    build = ["build-dataset", "--recipe", "imagenet-dit-256", "--out", tmp_path / "release"]
    result = run(build, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "facebook/DiT-XL-2-256 is not on this machine" in result.stderr


def test_a_gpu_too_small_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = load_recipe("imagenet-if").stages
    monkeypatch.setattr(builder.planning.gpu_memory, "gpu_memory_gib", lambda: [79.2, 15.8])
    with pytest.raises(UserError, match=r"stage at 1024 px needs 22 GiB .* has 15\.8: hide it"):
        require_memory(stages)
    require_memory(stages[:2])
    monkeypatch.setattr(builder.planning.gpu_memory, "gpu_memory_gib", lambda: [23.6])
    require_memory(stages)
    monkeypatch.setattr(builder.planning.gpu_memory, "gpu_memory_gib", list)
    require_memory(stages)


def test_every_1024_px_stage_fits_a_card_of_24_gb() -> None:
    for name in IMAGENET:
        for stage in load_recipe(name).stages:
            assert stage.cost is not None
            assert stage.cost.memory_gib <= 23.5


def test_the_guide_lists_every_recipe_with_its_regime() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "generators.md").read_text().splitlines()
    for name in IMAGENET:
        rows = [line.split("|") for line in guide if line.startswith(f"| `{name}` |")]
        assert rows, name
        recipe = load_recipe(name)
        assert rows[0][2].strip() == ", ".join(str(s.resolution) for s in recipe.stages)
        assert rows[0][5].strip() == recipe.regime
        published = recipe.stages[-1].published
        assert rows[0][6].strip() == (f"{published[0].fid:g}" if published else "none")
