"""Axes of select-sampler that belong to one family's sampler."""

from pathlib import Path

import pytest

from builder.planning.recipe import BUILTIN, Recipe, load_recipe
from generation.diffusion.sampler_config import SamplerConfig
from metrics.selection.report import write_recipe
from metrics.selection.sweep import (
    AXES,
    parse_grid,
    sampler_settings,
    sweep_points,
    with_sampler,
)
from release.commands.toml_recipes import recipe_names_in
from release.errors import UserError

ABSENT = dict.fromkeys(AXES)


def swept(recipe: Recipe, method: str, **asked: str) -> list[dict[str, object]]:
    grid = parse_grid(recipe, 32, method, ABSENT | asked)
    points = sweep_points(recipe, 32, grid)
    return [sampler_settings(point.recipe.chain(32)[-1].sampler) for point in points]


def test_what_one_kind_of_sampler_alone_has_is_swept() -> None:
    truncations = swept(load_recipe("fashion-mnist-biggan"), "truncation", truncation="0.5,1")
    assert [point["truncation"] for point in truncations] == [0.5, 1]
    codes = swept(load_recipe("fashion-mnist-vq-vae-2"), "native", temperature="0.8,0.9")
    assert [point["temperature"] for point in codes] == [0.8, 0.9]
    spaced = swept(load_recipe("fashion-mnist"), "dpm-solver++", spacing_power="1,1.5")
    assert [point.get("spacing_power") for point in spaced] == [None, 1.5]
    noisy = swept(load_recipe("fashion-mnist-adm"), "ddim", eta="0,0.5,1")
    assert [point.get("eta") for point in noisy] == [None, 0.5, 1]
    guided = swept(load_recipe("fashion-mnist-adm-g"), "ddim", classifier_scale="1,2")
    folder = "runs/fashion-mnist-adm-classifier/checkpoint"
    assert [point["classifier"] for point in guided] == [
        {"checkpoint": folder, "scale": scale} for scale in (1, 2)
    ]


@pytest.mark.parametrize("name", recipe_names_in(BUILTIN))
def test_what_is_not_swept_stays_as_the_recipe_has_it(name: str) -> None:
    """The method, too."""
    recipe = load_recipe(name)
    for stage in recipe.stages:
        grid = parse_grid(recipe, stage.resolution, None, ABSENT)
        (point,) = sweep_points(recipe, stage.resolution, grid)
        assert point.recipe.chain(stage.resolution)[-1].sampler == stage.sampler


def test_a_choice_with_a_classifier_is_written_as_a_recipe_that_is_read(tmp_path: Path) -> None:
    recipe = load_recipe("fashion-mnist-adm-g")
    (settings,) = swept(recipe, "ddim", classifier_scale="4", steps="25")
    file = tmp_path / "chosen.toml"
    write_recipe("fashion-mnist-adm-g", "chosen", 32, {"sampler": settings}, "best", file)
    sampler = load_recipe(str(file)).stages[0].sampler
    assert sampler.classifier is not None
    assert (sampler.method, sampler.steps, sampler.classifier.scale) == ("ddim", 25, 4)


def test_the_ends_of_the_interval_of_guidance_are_swept() -> None:
    recipe = load_recipe("fashion-mnist-sr3")
    asked = {"guidance": "2", "guidance_from": "0,0.2", "guidance_to": "0.7"}
    swept_ends = [one["guidance_interval"] for one in swept(recipe, "ddim", **asked)]
    assert swept_ends == [(0.0, 0.7), (0.2, 0.7)]
    (alone,) = swept(recipe, "ddim", guidance="2", guidance_from="0.2")
    assert alone["guidance_interval"] == (0.2, 1.0)
    own = SamplerConfig(method="ddim", steps=25, guidance=2, guidance_interval=(0.1, 0.6))
    within = with_sampler(recipe, 32, own)
    (kept,) = swept(within, "ddim", guidance_to="0.8")
    assert kept["guidance_interval"] == (0.1, 0.8)
    unguided, guided = swept(within, "ddim", guidance="1,2")
    assert "guidance_interval" not in unguided  # there is nothing to limit
    assert guided["guidance_interval"] == (0.1, 0.6)


@pytest.mark.parametrize(
    ("name", "method", "asked", "words"),
    [
        ("fashion-mnist-adm", "ddpm", {"classifier_scale": "1"}, "names no classifier"),
        ("fashion-mnist-adm", "ddpm", {"eta": "0.5"}, "no effect on ddpm, only on ddim"),
        ("fashion-mnist-adm", "ddpm", {"temperature": "0.5"}, "temperature is of codes"),
        ("fashion-mnist-adm", "ddpm", {"truncation": "0.5"}, "goes with method = 'truncation'"),
        ("fashion-mnist-biggan", "truncation", {"truncation": "1.5"}, "--truncation"),
        ("fashion-mnist-adm", "ddpm", {"guidance_to": "0.7"}, "a guidance other than 1"),
        (
            "fashion-mnist-sr3",
            "ddim",
            {"guidance": "2", "guidance_to": "1.2"},
            "--guidance-interval",
        ),
    ],
)
def test_an_axis_of_another_family_is_refused(
    name: str, method: str, asked: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        swept(load_recipe(name), method, **asked)
