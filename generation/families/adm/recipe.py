"""What a training recipe of OpenAI's U-Nets says beside what every training recipe says."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe

UPSCALING = 4  # of the upsampler


class OpenAIStageRecipe(BaseModel):
    """The stage to train.

    low_resolution: side of the parents, of the upsampler alone. classes_embedding: the start's, for
    the classes it knows in their order, or a new one for the recipe's own classes, drawn from its
    seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    low_resolution: Annotated[int, Field(gt=0)] | None = None
    classes_embedding: Literal["start", "new"] = "start"

    @model_validator(mode="after")
    def _enlarges_fourfold(self) -> Self:
        low = self.low_resolution
        if low is not None and UPSCALING * low != self.resolution:
            raise ValueError(
                f"the upsampler enlarges {UPSCALING} times: low_resolution {low} goes with "
                f"resolution {UPSCALING * low}, not {self.resolution}"
            )
        return self


class OpenAITraining(TrainingConfig):
    """How a network is trained.

    flip: mirror half of the images. dropout: in its residual blocks.
    """

    flip: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class OpenAIRecipe(TrainingRecipe):
    """network: the shape of the U-Net, not to be written: the start's is filled in."""

    stage: OpenAIStageRecipe
    network: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda shape: not shape)
    training: OpenAITraining
