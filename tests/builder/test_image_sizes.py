"""A stage's size reaches its model; what no model of its kind makes is refused before loading."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.dry_run import print_plan
from builder.making import Wanted
from builder.planning.recipe import Recipe
from builder.release.reproduce import Release
from builder.shards.shard import load_generator
from generation.families import MODULES, generator_source
from generation.families.pixel_unet.checkpoint import save_checkpoint
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.image_sets import decode
from tests.generation.families.references import latent_diffusion_reference, openai_reference
from tests.generation.families.references.tiny_deepfloyd import save_chain
from tests.in_process import InProcess
from tests.models.tiny_models import (
    save_biggan,
    save_dit,
    save_flux2_klein,
    save_pixart,
    save_sana,
    save_sdxl,
)
from tests.models.tiny_network import tiny_conditioned

pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
NAMES = ("apple", "pear", "plum")
Stage = tuple[str, str, int]  # generator, checkpoint, resolution
FITTING: dict[str, list[Stage]] = {
    "a text pipeline at its own size": [("diffusers", "pixart", 16)],
    "a text pipeline at another": [("diffusers", "pixart", 40)],
    "FLUX packs two latents by two": [("diffusers", "flux2-klein", 20)],
    "a cascade": [
        ("deepfloyd-if", "if-1", 8),
        ("deepfloyd-if", "if-2", 32),
        ("deepfloyd-if", "x4", 128),
    ],
    "a pipeline before an upscaler": [("diffusers", "sana", 32), ("deepfloyd-if", "x4", 128)],
    "a pixel cascade": [("pixel-unet", "base", 8), ("pixel-unet", "larger", 16)],
    "ADM": [("adm-64", "adm-64.pt", 16), ("adm-upsampler", "adm-upsampler.pt", 64)],
}
FIRST = "enlarges no images: it must be a first stage"
NOT_FIRST = "cannot be a first stage"
NOT_FITTING: dict[str, tuple[list[Stage], str]] = {
    "half a patch": ([("diffusers", "pixart", 18)], "side is a multiple of 4 px"),
    "half a pack": ([("diffusers", "flux2-klein", 18)], "side is a multiple of 4 px"),
    "half a latent": ([("diffusers", "sdxl", 17)], "side is a multiple of 2 px"),
    "half a deep latent": ([("diffusers", "sana", 34)], "side is a multiple of 4 px"),
    "another DiT": ([("dit", "dit", 16)], "makes images of 8 px"),
    "another BigGAN": ([("biggan", "biggan", 32)], "makes images of 16 px"),
    "another base": ([("deepfloyd-if", "if-1", 16)], "makes images of 8 px"),
    "another U-Net": ([("pixel-unet", "base", 16)], "makes images of 8 px"),
    "a second text stage": (
        [("deepfloyd-if", "if-1", 8), ("diffusers", "pixart", 16)],
        f"pixart {FIRST}, its stage in the recipe has resolution 16 and follows one of 8 px",
    ),
    "a second base": ([("pixel-unet", "base", 8), ("deepfloyd-if", "if-1", 9)], "of 8 px"),
    "a factor of 2": (
        [("diffusers", "sana", 32), ("deepfloyd-if", "x4", 64)],
        "makes images of 128 px from ones of 32 px",
    ),
    "IF's factor": (
        [("diffusers", "pixart", 16), ("deepfloyd-if", "if-2", 32)],
        "makes images of 64 px from ones of 16 px",
    ),
    "other parents": (
        [("diffusers", "pixart", 12), ("pixel-unet", "larger", 16)],
        "enlarges images of 8 px",
    ),
    "ADM's factor": (
        [("adm-64", "adm-64.pt", 16), ("adm-upsampler", "adm-upsampler.pt", 48)],
        "makes images of 64 px from ones of 16 px",
    ),
    "an upscaler alone": ([("deepfloyd-if", "x4", 128)], NOT_FIRST),
    "ADM's upsampler alone": ([("adm-upsampler", "adm-upsampler.pt", 64)], NOT_FIRST),
    "super-resolution alone": ([("pixel-unet", "larger", 16)], "enlarges images of 8 px"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save: dict[str, Callable[[Path], Path]] = {
        "biggan": save_biggan,
        "dit": save_dit,
        "flux2-klein": save_flux2_klein,
        "pixart": save_pixart,
        "sana": save_sana,
        "sdxl": save_sdxl,
    }
    for name, function in save.items():
        function(folder / name)
    save_chain(folder)
    for name in openai_reference.TINY:
        torch.save(openai_reference.tiny(name).state_dict(), folder / f"{name}.pt")
    parts = latent_diffusion_reference.tiny()
    torch.save(latent_diffusion_reference.checkpoint(*parts), folder / "ldm.ckpt")
    for name, low in (("base", None), ("larger", 8)):
        save_checkpoint(tiny_conditioned("class", NAMES, low), folder / name, torch.float32)
    return folder


@pytest.fixture(autouse=True)
def cache(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(models / "cache"))
    monkeypatch.chdir(models)


def recipe_of(stages: list[Stage], class_list: Path) -> Recipe:
    samplers = {
        "diffusers": {"method": "native", "steps": 2, "guidance": 3.0},
        "biggan": {"method": "truncation", "truncation": 0.7},
    }
    return Recipe.model_validate(
        {
            "name": "tiny",
            "description": "tiny",
            "classes": str(class_list),
            "dataset": "test",
            "regime": "A",
            "license": "mit",
            "stage": [
                {
                    "resolution": resolution,
                    "generator": generator,
                    "checkpoint": checkpoint,
                    "batch": 2,
                    "sampler": samplers.get(generator, {}),
                }
                for generator, checkpoint, resolution in stages
            ],
        }
    )


def dry_run(recipe: Recipe, release: Path) -> None:
    classes = load_classes(recipe.classes)
    print_plan(Wanted(recipe, recipe.stages, classes, classes, 1), release, as_json=True)


def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        source = generator_source(name)
        monkeypatch.setattr(source, "load", lambda *_: pytest.fail("a model was loaded"))


@pytest.mark.parametrize("stages", FITTING.values(), ids=FITTING)
def test_a_chain_whose_sizes_fit_is_planned(
    stages: list[Stage], class_list: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(stages, class_list)
    plan = plan_build(recipe, recipe.stages, load_classes(recipe.classes), 1, tmp_path)
    assert len(plan.stages) == len(stages)


@pytest.mark.parametrize(("stages", "why"), NOT_FITTING.values(), ids=NOT_FITTING)
def test_one_whose_sizes_do_not_is_refused_before_anything_is_loaded(
    stages: list[Stage],
    why: str,
    class_list: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing_is_loaded(monkeypatch)
    recipe = recipe_of(stages, class_list)
    with pytest.raises(UserError, match=why) as error:
        plan_build(recipe, recipe.stages, load_classes(recipe.classes), 1, tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=why):
        dry_run(recipe, tmp_path)
    assert list(tmp_path.iterdir()) == []


NOWHERE: dict[str, tuple[list[Stage], str]] = {
    name: ([("pixel-unet", "base", 8), (name, "nowhere/nothing", 16)], FIRST)
    for name in (
        *("adm-256", "adm-64", "biggan", "diffusers", "dit", "iddpm", "ldm"),
        *("rin", "simple-diffusion"),
    )
} | {"adm-upsampler": ([("adm-upsampler", "nowhere.pt", 64)], NOT_FIRST)}


@pytest.mark.parametrize(("stages", "why"), NOWHERE.values(), ids=NOWHERE)
def test_a_dry_run_refuses_a_stage_out_of_place_though_its_model_is_not_at_hand(
    stages: list[Stage], why: str, class_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_is_loaded(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=why):
        dry_run(recipe_of(stages, class_list), tmp_path)


def test_every_generator_says_what_sizes_it_knows() -> None:
    assert [n for n in MODULES if not hasattr(generator_source(n), "size_problem")] == []


def test_a_dry_run_notices_a_size_that_only_the_weights_tell(
    class_list: Path, tmp_path: Path
) -> None:
    recipe = recipe_of([("adm-64", "adm-64.pt", 32)], class_list)
    quick = recipe.stages[0].sampler.model_copy(update={"steps": 2})
    stage = recipe.stages[0].model_copy(update={"sampler": quick})
    with pytest.raises(UserError, match=r"makes images of 16 px, its stage .* resolution 32"):
        dry_run(recipe.model_copy(update={"stages": (stage,)}), tmp_path)


def test_a_text_pipeline_makes_the_size_of_its_stage_and_makes_it_again(
    class_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline's default is 16 px. First as a build, then as `release reproduce`."""
    InProcess(monkeypatch)
    recipe = recipe_of([("diffusers", "pixart", 40)], class_list)
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.stages, classes, 1, tmp_path / "release")
    outcome = build_release(plan, RunSettings(), lambda _: None)
    assert outcome.quarantined == ()
    assert outcome.manifest is not None
    release = Release(tmp_path / "release", outcome.manifest)
    images = release.draw(3, 0, last_stage=True)
    assert {decode(image.content).shape for image in images} == {(40, 40, 3)}
    assert [c.same_bytes for c in release.reproduce(images[::-1])] == [True] * 3
    load_generator.cache_clear()
