"""Training recipes: a stage, its network and how it is trained, as their author writes them."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generation.errors import UserError, unknown_name
from generation.sampler_config import Prediction
from generation.schedule import ScheduleConfig
from generation.training_config import TrainingConfig

BUILTIN = Path(__file__).parent / "training_recipes"


class StageRecipe(BaseModel):
    """The stage to train; see StageConfig, which the checkpoint will hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(ge=1, le=3)] = 3
    patch: Annotated[int, Field(ge=1)] = 1
    low_resolution: int | None = None
    prediction: Prediction = "v"
    variance: Literal["fixed", "learned"] = "fixed"
    schedule: ScheduleConfig = ScheduleConfig()


class TrainingRecipe(BaseModel):
    """network: arguments of diffusers' UNet2DConditionModel (block types, widths, attention)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    classes: str
    stage: StageRecipe
    network: dict[str, Any]
    training: TrainingConfig


def load_training_recipe(source: str) -> TrainingRecipe:
    """A built-in training recipe by name, or a TOML file; UserError names what is wrong in it."""
    path = Path(source) if source.endswith(".toml") else BUILTIN / f"{source}.toml"
    if not path.is_file():
        if source.endswith(".toml"):
            raise UserError(f"training recipe {source} does not exist")
        raise unknown_name("training recipe", source, (p.stem for p in BUILTIN.glob("*.toml")))
    try:
        return TrainingRecipe.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"training recipe {path} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise UserError(f"training recipe {path}: {where}: {first['msg']}") from None
