"""Training recipes: a stage, its network and how it is trained, as their author writes them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generation.conditioning import Conditioning
from generation.sampler_config import Prediction
from generation.schedule import ScheduleConfig
from generation.toml_recipes import load_toml
from generation.training_config import TrainingConfig

BUILTIN = Path(__file__).parent / "training_recipes"


class StageRecipe(BaseModel):
    """The stage to train; see StageConfig, which the checkpoint will hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    channels: Literal[1, 3] = 3
    patch: Annotated[int, Field(ge=1)] = 1
    low_resolution: Annotated[int, Field(gt=0)] | None = None
    prediction: Prediction = "v"
    variance: Literal["fixed", "learned"] = "fixed"
    schedule: ScheduleConfig = ScheduleConfig()
    conditioning: Conditioning = "text"

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        if self.resolution % self.patch:
            raise ValueError(f"patch {self.patch} does not divide resolution {self.resolution}")
        if self.low_resolution is not None and self.low_resolution >= self.resolution:
            raise ValueError(
                f"low_resolution {self.low_resolution} is not below resolution {self.resolution}"
            )
        return self


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
    return load_toml(TrainingRecipe, "training recipe", BUILTIN, source)
