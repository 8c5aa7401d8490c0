"""The axis of select-sampler that sweeps of before it existed do not have."""

import pytest

from builder.planning.recipe import load_recipe
from metrics.selection.sweep import AXES, parse_grid, sweep_points
from release.errors import UserError

ABSENT = dict.fromkeys(AXES)


def test_the_black_point_is_swept_where_it_is_asked_for() -> None:
    recipe = load_recipe("fashion-mnist")
    asked = {"steps": "8", "black_point": "0,4"}
    grid = parse_grid(recipe, 32, "dpm-solver++", ABSENT | asked)
    points = sweep_points(recipe, 32, grid)
    assert [p.name for p in points] == [f"dpm-solver++-w1-g0-s8-a0-b{k}" for k in (0, 4)]
    assert [p.recipe.chain(32)[-1].sampler.black_point for p in points] == [0, 4]
    assert grid.options == "--method dpm-solver++ --steps 8 --black-point 0,4"
    plain = parse_grid(recipe, 32, "dpm-solver++", ABSENT | {"steps": "8"})
    (point,) = sweep_points(recipe, 32, plain)
    assert point.name == "dpm-solver++-w1-g0-s8-a0"
    assert "black_point" not in point.settings


@pytest.mark.parametrize(("text", "reason"), [("0,b", "give numbers"), ("-1", "0"), ("300", "255")])
def test_black_points_that_are_no_grey_levels_are_refused(text: str, reason: str) -> None:
    recipe = load_recipe("fashion-mnist")
    asked = ABSENT | {"black_point": text}
    with pytest.raises(UserError, match=f"--black-point.*{reason}"):
        sweep_points(recipe, 32, parse_grid(recipe, 32, "ddpm", asked))
