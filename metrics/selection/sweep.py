"""The grid of a sampler sweep, and its points."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from builder.planning.recipe import Recipe
from generation.diffusion.sampler_config import SamplerConfig
from metrics.selection.selection import Point
from release.commands.validation import reason
from release.errors import UserError

AXES = {  # letter in names
    "guidance": "w",
    "gamma": "g",
    "eta": "e",
    "steps": "s",
    "noise_augmentation": "a",
    "black_point": "b",
    "truncation": "t",
    "temperature": "c",
    "classifier_scale": "k",
    "spacing_power": "p",
    "guidance_from": "f",
    "guidance_to": "u",
}
# sweeps of before these existed keep the names of their points
INTERVAL = ("guidance_from", "guidance_to")  # the two ends of guidance_interval
WHERE_ASKED = (
    *("eta", "black_point", "truncation", "temperature", "classifier_scale", "spacing_power"),
    *INTERVAL,
)
DEEPER = ("classifier_scale", *INTERVAL)  # no settings of a sampler by these names
ALL_SHARES = (0.0, 1.0)
WHOLE = ("steps", "black_point")
LABELS = {
    "guidance": "guidance weight w",
    "gamma": "log-variance coefficient $\\gamma$",
    "eta": "share of DDPM's noise $\\eta$",
    "steps": "steps",
    "noise_augmentation": "noise augmentation",
    "black_point": "black point",
    "truncation": "truncation",
    "temperature": "temperature",
    "classifier_scale": "scale of the classifier's gradient",
    "spacing_power": "power of the steps' spacing",
    "guidance_from": "least share of noise that is guided",
    "guidance_to": "greatest share of noise that is guided",
}


@dataclass(frozen=True)
class Grid:
    """The values of each axis, ascending; every combination is a point.

    options: method and axes as the user gave them, such as --gamma 0,0.3.
    """

    method: str
    values: dict[str, tuple[float, ...]]
    options: str

    @property
    def axes(self) -> list[str]:
        """The axes that vary."""
        return [axis for axis, values in self.values.items() if len(values) > 1]


def parse_grid(
    recipe: Recipe, resolution: int, method: str | None, texts: dict[str, str | None]
) -> Grid:
    """Comma-separated values an axis; None: the stage's own, gamma 0 where it has no effect.

    UserError for what is no number, is out of range, or has no effect on the stage or method.
    """
    chain = recipe.chain(resolution, "--stage")
    own = chain[-1].sampler
    method = method or own.method
    values: dict[str, tuple[float, ...]] = {}
    for axis in AXES:
        text = texts.get(axis)
        if text is None and axis in WHERE_ASKED:
            continue
        values[axis] = (_kept(own, axis, method),) if text is None else _numbers(axis, text)
    if len(chain) == 1 and any(values["noise_augmentation"]):
        raise UserError(
            f"--noise-augmentation has no effect on stage {resolution}, the first of the chain: "
            "it is noise on the parent image"
        )
    if "classifier_scale" in values and own.classifier is None:
        raise UserError(
            f"--classifier-scale has no effect on stage {resolution}: its sampler names no "
            "classifier"
        )
    given = {"method": method} | {axis: text for axis, text in texts.items() if text is not None}
    options = " ".join(f"{_option(axis)} {text}" for axis, text in given.items())
    return Grid(method, values, options)


def _kept(own: SamplerConfig, axis: str, method: str) -> float:
    """The stage's own value of an axis that is not given."""
    found: float = 0.0 if axis == "gamma" and method != "ddpm" else getattr(own, axis)
    return found


def _option(axis: str) -> str:
    return f"--{axis.replace('_', '-')}"


def _numbers(axis: str, text: str) -> tuple[float, ...]:
    kind: Callable[[str], float] = int if axis in WHOLE else float
    try:
        return tuple(sorted({kind(field) for field in text.split(",")}))
    except ValueError:
        raise UserError(f"{_option(axis)} {text!r}: give numbers, comma-separated") from None


def sweep_points(recipe: Recipe, resolution: int, grid: Grid) -> list[Point]:
    """Every combination of the grid's values, as the recipe with that stage's sampler replaced."""
    own = recipe.chain(resolution)[-1].sampler
    eta = own.eta if grid.method == "ddim" else 0.0
    points = []
    for values in product(*grid.values.values()):
        settings = dict(zip(grid.values, values, strict=True))
        try:
            sampler = SamplerConfig.model_validate(
                own.model_dump() | {"method": grid.method, "eta": eta} | _of_sampler(own, settings)
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = _option(str(first["loc"][0])) if first["loc"] else grid.options
            raise UserError(f"{where}: {reason(first)}") from None
        name = "-".join(f"{AXES[axis]}{value:g}" for axis, value in settings.items())
        name = f"{grid.method}-{name}"
        point = with_sampler(recipe, resolution, sampler)
        if sampler.guidance == 1:  # at which a guide is asked for nothing
            point = with_stage(point, resolution, {"guide": None})
        points.append(Point(name, {"method": grid.method, **settings}, point))
    return points


def _of_sampler(own: SamplerConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """A point's settings as those of a sampler, where some stand deeper.

    An end of the interval that is not asked for is the stage's own, else that of all shares.
    """
    found = {axis: value for axis, value in settings.items() if axis not in DEEPER}
    if "classifier_scale" in settings:
        assert own.classifier is not None
        found["classifier"] = own.classifier.model_dump() | {"scale": settings["classifier_scale"]}
    if settings.keys() & set(INTERVAL):
        ends = zip(INTERVAL, own.guidance_interval or ALL_SHARES, strict=True)
        found["guidance_interval"] = [settings.get(axis, end) for axis, end in ends]
    elif found["guidance"] == 1:  # at which there is nothing to limit
        found["guidance_interval"] = None
    return found


def sampler_settings(sampler: SamplerConfig) -> dict[str, Any]:
    """As its author would write it: method and steps, and what is not as by default."""
    default = SamplerConfig().model_dump()
    return {
        field: value
        for field, value in sampler.model_dump().items()
        if field in ("method", "steps") or value != default.get(field)
    }


def with_sampler(recipe: Recipe, resolution: int, sampler: SamplerConfig) -> Recipe:
    """The recipe with one stage's sampler replaced."""
    return with_stage(recipe, resolution, {"sampler": sampler})


def with_stage(recipe: Recipe, resolution: int, changes: dict[str, Any]) -> Recipe:
    """The recipe with fields of one stage replaced."""
    stages = tuple(
        stage.model_copy(update=changes) if stage.resolution == resolution else stage
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages})
