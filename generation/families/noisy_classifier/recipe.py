"""What a recipe of a classifier of noisy images says beside what those of all denoisers say."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import DenoiserRecipe, DenoiserStage, DenoiserTraining, Table
from generation.diffusion.schedule import ScheduleConfig

Count = Annotated[int, Field(ge=1)]
LINEAR = ScheduleConfig(name="linear")  # 1000 steps, beta from 1e-4 to 0.02


class ClassifierStage(DenoiserStage):
    """The images to classify, made noisy by `schedule`."""

    schedule: ScheduleConfig = LINEAR

    @model_validator(mode="after")
    def _knows_classes_alone(self) -> Self:
        if self.low_resolution is not None or self.conditioning != "class":
            raise ValueError("a classifier sees no parents, and knows classes")
        return self


class EncoderShape(Table):
    """The half of a U-Net that goes down, and attention in place of a mean over its last maps.

    base_channels, multipliers: channels of a level are their product; each level has half the side
    of the one before. blocks: residual blocks of each level. attention: sides of feature maps that
    have self-attention, in heads of `head_width` channels, as the last has. dropout: share of
    dropped units. groups: of the norms, or as many as divide narrower layers.
    """

    base_channels: Count
    multipliers: Annotated[tuple[Count, ...], Field(min_length=2)]
    blocks: Count
    attention: tuple[Count, ...] = ()
    head_width: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    groups: Count = 32

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        for multiplier in self.multipliers:
            if self.base_channels * multiplier % self.head_width:
                raise ValueError(
                    f"head_width {self.head_width} does not divide a level's "
                    f"{self.base_channels * multiplier} channels"
                )
        return self


class ClassifierTraining(DenoiserTraining):
    """class_dropout: none, a classifier is told no class."""

    class_dropout: Annotated[float, Field(ge=0, le=0)] = 0.0


class ClassifierRecipe(DenoiserRecipe):
    """A classifier of images at all noise levels of a schedule."""

    stage: ClassifierStage
    network: EncoderShape
    training: ClassifierTraining

    @model_validator(mode="after")
    def _sides_halve(self) -> Self:
        halvings = len(self.network.multipliers) - 1
        if self.stage.resolution % 2**halvings:
            raise ValueError(f"images of {self.stage.resolution} px do not halve {halvings} times")
        return self
