"""Training recipes: a stage, its network and how it is trained, as their author writes them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import ScheduleConfig
from generation.prompts.conditioning import Conditioning
from generation.training.config import TrainingConfig
from release.commands.toml_recipes import load_toml

BUILTIN = Path(__file__).parent / "recipes"


class StageRecipe(BaseModel):
    """The stage to train; see StageConfig, which the checkpoint will hold.

    channels: 1 for grey images, 3 for colour; left out, what the data has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    channels: Literal[1, 3] | None = None
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
    """network: arguments of diffusers' UNet2DConditionModel (block types, widths, attention).

    Left out or empty where a training starts from a checkpoint: what that has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    classes: str
    stage: StageRecipe
    network: dict[str, Any] = {}
    training: TrainingConfig

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        steps, warmup = self.training.steps, self.training.warmup
        if warmup >= max(2, steps):
            raise ValueError(
                f"training: with warmup = {warmup} the learning rate still rises at the last of "
                f"steps = {steps}: set a warmup of at most {steps // 2}"
            )
        return self

    def with_steps(self, steps: int) -> "TrainingRecipe":
        """For another number of steps, with half of them as warm-up at most."""
        warmup = min(self.training.warmup, steps // 2)
        changes = {"steps": steps, "warmup": warmup}
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})

    def with_channels(self, channels: int) -> "TrainingRecipe":
        """For images of so many channels."""
        stage = self.stage.model_copy(update={"channels": channels})
        return self.model_copy(update={"stage": stage})


def load_training_recipe(source: str) -> TrainingRecipe:
    """A built-in training recipe by name, or a TOML file; UserError names what is wrong in it."""
    return load_toml(TrainingRecipe, "training recipe", BUILTIN, source)
