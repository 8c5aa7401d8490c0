"""What a training recipe of a DeepFloyd IF stage says beside what every training recipe says."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generation.families.deepfloyd_if.generator import UPSCALING
from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe


class IFStageRecipe(BaseModel):
    """The stage to train. low_resolution: side of the parents, left out for a first stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    low_resolution: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _enlarges_fourfold(self) -> Self:
        low = self.low_resolution
        if low is not None and UPSCALING * low != self.resolution:
            raise ValueError(
                f"IF-II enlarges {UPSCALING} times: low_resolution {low} goes with resolution "
                f"{UPSCALING * low}, not {self.resolution}"
            )
        return self


class IFTraining(TrainingConfig):
    """How a stage is trained.

    caption_dropout: share of images that see the null prompt, the embedding of an empty text
    (classifier-free guidance). flip: mirror half of the images. max_augmentation: the noise in a
    parent is that of a step drawn evenly from 0 up to this share of the steps.
    """

    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = False
    max_augmentation: Annotated[float, Field(ge=0, le=1)] = 1.0


class DeepFloydIFRecipe(TrainingRecipe):
    """network: the arguments of the U-Net, not to be written: the start's are filled in."""

    stage: IFStageRecipe
    network: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda shape: not shape)
    training: IFTraining
