"""What a training recipe of a pixel U-Net says beside what every training recipe says."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import ScheduleConfig
from generation.prompts.conditioning import Conditioning
from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe


class StageRecipe(BaseModel):
    """The stage to train; see StageConfig, which the checkpoint will hold.

    channels: 1 for grey images, 3 for colour; left out, what the data has. residual: only of a
    super-resolution stage, and not with a learned variance, whose loss knows an image's levels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(gt=0)]
    channels: Literal[1, 3] | None = None
    patch: Annotated[int, Field(ge=1)] = 1
    low_resolution: Annotated[int, Field(gt=0)] | None = None
    prediction: Prediction = "v"
    variance: Literal["fixed", "learned"] = "fixed"
    residual: Annotated[float, Field(gt=0)] | None = None
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

    @model_validator(mode="after")
    def _residual_has_a_parent(self) -> Self:
        if self.residual is not None and self.low_resolution is None:
            raise ValueError("residual is to a parent, and without low_resolution there is none")
        if self.residual is not None and self.variance == "learned":
            raise ValueError("a learned variance goes with whole images: leave residual out")
        return self

    @model_serializer(mode="wrap")
    def _residual_where_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Named only where set: the record of a training of before there was a choice."""
        content: dict[str, Any] = dump(self)
        if self.residual is None:
            del content["residual"]
        return content


class PixelUNetTraining(TrainingConfig):
    """How a pixel U-Net is trained.

    caption_dropout: share of images that see the null prompt or class (classifier-free guidance).
    flip: mirror half of the images. max_augmentation: a super-resolution stage's augmentation level
    is uniform up to this.
    """

    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    flip: bool = False
    max_augmentation: Annotated[float, Field(ge=0, lt=1)] = 0.5


class PixelUNetRecipe(TrainingRecipe):
    """network: arguments of diffusers' UNet2DConditionModel (block types, widths, attention).

    Left out or empty where a training starts from a checkpoint: what that has.
    """

    stage: StageRecipe
    network: dict[str, Any] = Field(default_factory=dict)
    training: PixelUNetTraining

    def with_channels(self, channels: int) -> "PixelUNetRecipe":
        """For images of so many channels."""
        stage = self.stage.model_copy(update={"channels": channels})
        return self.model_copy(update={"stage": stage})
