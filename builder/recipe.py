"""A recipe: the whole of what decides a release's images, as its author writes it (TOML)."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from generation.errors import UserError, unknown_name
from generation.sampler_config import SamplerConfig

BUILTIN = Path(__file__).parent / "recipes"
Encoding = Literal["webp-lossless", "png", "jpeg"]
Positive = Annotated[int, Field(gt=0)]


class StageRecipe(BaseModel):
    """One stage of the chain. sha256: the checkpoint's hash, refused if another is found.

    batch: images the network sees at once; fixed, so that pixels do not depend on grouping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Positive
    generator: str
    checkpoint: str
    sha256: str | None = None
    sampler: SamplerConfig = SamplerConfig()
    batch: Positive = 50


class ShardRecipe(BaseModel):
    """Size of a shard: a block of classes times a block of indices, classes interleaved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: Positive = 10
    indices: Positive = 25


class Recipe(BaseModel):
    """A release's recipe.

    classes: a built-in class list or a CSV. dataset: the real data set those classes come from.
    regime: A, the generator never saw that set; B, it was fine-tuned on it; C, it is conditioned
    on real images. license: of the images, with what the model's licence says of sharing them.
    encoding: of the resolution asked for; the stages before it are always lossless.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str
    description: str
    classes: str
    dataset: str
    regime: Literal["A", "B", "C"]
    license: str
    license_note: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 2023
    encoding: Encoding = "webp-lossless"
    shard: ShardRecipe = ShardRecipe()
    stages: Annotated[tuple[StageRecipe, ...], Field(alias="stage", min_length=1)]

    @model_validator(mode="after")
    def _resolutions_rise(self) -> "Recipe":
        resolutions = [stage.resolution for stage in self.stages]
        if resolutions != sorted(set(resolutions)):
            raise ValueError(f"the stages' resolutions must rise, not {resolutions}")
        return self

    def chain(self, resolution: int | None) -> tuple[StageRecipe, ...]:
        """The stages that lead to `resolution` (None: all); UserError if there is none."""
        known = [stage.resolution for stage in self.stages]
        if resolution is not None and resolution not in known:
            raise UserError(
                f"recipe {self.name} has no stage at --res {resolution}; "
                f"it has {', '.join(map(str, known))}"
            )
        last = known.index(resolution) if resolution is not None else len(known) - 1
        return self.stages[: last + 1]


def load_recipe(source: str) -> Recipe:
    """A built-in recipe by name, or a TOML file; UserError names what is wrong in it."""
    path = Path(source) if source.endswith(".toml") else BUILTIN / f"{source}.toml"
    if not path.is_file():
        if source.endswith(".toml"):
            raise UserError(f"recipe {source} does not exist")
        raise unknown_name("recipe", source, (p.stem for p in BUILTIN.glob("*.toml")))
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {path} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise UserError(f"recipe {path}: {where}: {first['msg']}") from None
