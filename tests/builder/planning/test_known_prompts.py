"""A prompt that a stage's network never learned ends the plan of a build, not its last stage."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from builder.builds.build import plan_build
from builder.dry_run import print_plan
from builder.making import Wanted
from builder.planning.recipe import Recipe, load_recipe
from builder.state import write_state
from generation.families import generator_source
from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.prompts.conditioning import Conditioning
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.models import tiny_transformers
from tests.models.codes import tiny_vq_vae
from tests.models.tiny_denoisers import KINDS, PROMPTS, save_denoiser
from tests.models.tiny_network import tiny_conditioned, tiny_network
from tests.recipe_text import tiny_build, tiny_stage


def write_recipe(folder: Path, classes: Path, prompts: str = "") -> Recipe:
    """Of two stages. prompts: lines of its table, if it has one."""
    text = tiny_build(classes, "pixel-unet", folder / "first", "steps = 2", 8)
    text += tiny_stage("pixel-unet", folder / "second", "steps = 2", 16)
    (folder / "recipe.toml").write_text(text + (f"[prompts]\n{prompts}\n" if prompts else ""))
    return load_recipe(str(folder / "recipe.toml"))


def save_stage(
    folder: Path,
    prompts: tuple[str, ...],
    low: int | None = None,
    conditioning: Conditioning = "class",
) -> None:
    save_checkpoint(tiny_conditioned(conditioning, prompts, low), folder, torch.float32)


def save_text_stage(folder: Path) -> None:
    save_checkpoint(tiny_network(prompts=(*PROMPTS, "")), folder, torch.float32)


SAVED: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{kind: (made[0], lambda f, k=kind: save_denoiser(f, k)) for kind, made in KINDS.items()},
    "text": ("pixel-unet", save_text_stage),
    "class": ("pixel-unet", lambda folder: save_stage(folder, PROMPTS)),
    "vq-vae-2": ("vq-vae-2", tiny_vq_vae.save_tiny),
    **{
        kind: (kind, lambda f, k=kind: tiny_transformers.save_denoiser(f, k))
        for kind in tiny_transformers.FAMILIES
    },
}


@pytest.mark.parametrize("kind", SAVED)
def test_every_trained_network_says_the_prompts_that_it_learned(kind: str, tmp_path: Path) -> None:
    generator, save = SAVED[kind]
    save(tmp_path / "network")
    assert generator_source(generator).known_prompts(tmp_path / "network") == PROMPTS


def test_a_network_that_asks_for_none_takes_any(tmp_path: Path) -> None:
    save_stage(tmp_path / "stage", PROMPTS, conditioning="none")
    save_denoiser(tmp_path / "denoiser", "adm", stage={"conditioning": "none"})
    for generator, folder in (("pixel-unet", "stage"), ("adm", "denoiser")):
        assert generator_source(generator).known_prompts(tmp_path / folder) is None


def test_prompts_that_are_no_list_are_a_damaged_checkpoint(tmp_path: Path) -> None:
    save_stage(tmp_path / "stage", PROMPTS)
    file = tmp_path / "stage" / "stage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": None}))
    with pytest.raises(UserError, match="is damaged"):
        generator_source("pixel-unet").known_prompts(tmp_path / "stage")


@pytest.mark.parametrize(
    ("second", "prompts", "words"),
    [
        (PROMPTS, "", None),
        (("apple", "plum"), "", r"prompt 'pear' is not among the 2 .*second.*'apple', 'plum'"),
        (PROMPTS, 'templates = ["a red {prompt}"]', "prompt 'a red apple' is not among the 3"),
    ],
)
def test_a_prompt_of_any_stage_is_looked_for_when_a_build_is_planned(
    second: tuple[str, ...], prompts: str, words: str | None, class_list: Path, tmp_path: Path
) -> None:
    save_stage(tmp_path / "first", PROMPTS)
    save_stage(tmp_path / "second", second, low=8)
    recipe = write_recipe(tmp_path, class_list, prompts)
    classes = load_classes(str(class_list))

    def plan(count: int) -> None:
        plan_build(recipe, recipe.stages, classes[:count], 1, tmp_path / "release", classes)

    if words is None:
        plan(3)
        return
    with pytest.raises(UserError, match=words):
        plan(3)
    assert not (tmp_path / "release").exists()
    if not prompts:
        plan(1)  # of the apples, which it knows, a release may be built


def test_classes_of_an_earlier_build_need_their_prompts_too(
    class_list: Path, tmp_path: Path
) -> None:
    """Its images go through every further stage."""
    save_stage(tmp_path / "first", PROMPTS)
    save_stage(tmp_path / "second", ("apple", "plum"), low=8)
    recipe, classes = write_recipe(tmp_path, class_list), load_classes(str(class_list))
    release = tmp_path / "release"
    plan = plan_build(recipe, recipe.stages[:1], classes, 1, release, classes)
    release.mkdir()
    write_state(release, plan.state)
    with pytest.raises(UserError, match="prompt 'pear' is not among the 2"):
        plan_build(recipe, recipe.stages, classes[:1], 1, release, classes)


def test_a_dry_run_looks_for_prompts_too(class_list: Path, tmp_path: Path) -> None:
    save_stage(tmp_path / "first", ("apple", "plum"))
    recipe, classes = write_recipe(tmp_path, class_list), load_classes(str(class_list))
    wanted = Wanted(recipe, recipe.stages, classes, classes, 1)
    with pytest.raises(UserError, match="prompt 'pear' is not among the 2"):
        print_plan(wanted, tmp_path / "release", as_json=True)  # the second stage is not at hand
