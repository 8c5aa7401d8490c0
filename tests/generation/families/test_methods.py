"""Which sampler methods a generator takes is known when a build is planned."""

from pathlib import Path

import pytest

from builder.builds.build import plan_build
from builder.dry_run import print_plan
from builder.making import Wanted
from builder.planning.recipe import BUILTIN, load_recipe
from generation.families import MODULES, generator_source
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.recipe_text import tiny_build


def test_every_generator_of_ours_has_its_methods() -> None:
    for name in MODULES:
        assert generator_source(name).methods(), name


@pytest.mark.parametrize("name", sorted(path.stem for path in BUILTIN.glob("*.toml")))
def test_every_recipe_names_one_that_its_generators_take(name: str) -> None:
    for stage in load_recipe(name).stages:
        assert stage.sampler.method in generator_source(stage.generator).methods()


@pytest.mark.parametrize(
    ("generator", "sampler", "able"),
    [
        ("pixel-unet", 'method = "euler", steps = 2', "ddpm, ddim, dpm-solver"),
        ("sit", 'method = "ddpm", steps = 2', "euler, heun, euler-maruyama, heun-euler"),
        ("biggan", "steps = 2", "truncation"),
    ],
)
def test_another_method_is_refused_before_anything_is_read(
    generator: str, sampler: str, able: str, class_list: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(
        tiny_build(class_list, generator, tmp_path / "nowhere", sampler)
    )
    recipe, classes = load_recipe(str(tmp_path / "recipe.toml")), load_classes(str(class_list))
    words = rf"generator {generator} takes no sampler method .*, only: {able}"
    with pytest.raises(UserError, match=words):
        plan_build(recipe, recipe.stages, classes, 1, tmp_path / "release", classes)
    with pytest.raises(UserError, match=words):
        print_plan(Wanted(recipe, recipe.stages, classes, classes, 1), tmp_path / "release", False)
