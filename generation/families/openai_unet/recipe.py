"""What a recipe of these U-Nets says beside what those of all denoisers say."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import DenoiserRecipe, DenoiserStage, DenoiserTraining, Table
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import ScheduleConfig

Count = Annotated[int, Field(ge=1)]
LINEAR = ScheduleConfig(name="linear")  # 1000 steps, beta from 1e-4 to 0.02


class OpenAIStage(DenoiserStage):
    """A network that says epsilon, of an image or of what enlarges a parent."""

    prediction: Prediction = "epsilon"
    schedule: ScheduleConfig = LINEAR

    @model_validator(mode="after")
    def _says_epsilon(self) -> Self:
        if self.prediction != "epsilon":
            raise ValueError("these U-Nets predict epsilon: leave prediction out")
        return self


class OpenAIShape(Table):
    """base_channels, multipliers: channels of a level are their product, a multiple of `groups`,
    which the norms have; each level has half the side of the one before. blocks: residual blocks of
    each level. attention: sides of feature maps that have self-attention. heads: of each, or
    head_width: channels of each head. resblock_updown: sides change in residual blocks (BigGAN),
    else by convolutions. dropout: share of dropped units. variance: learned, the network says v
    (Nichol & Dhariwal 2021, eq. 15); fixed, it says epsilon alone. groups: of every norm.
    """

    base_channels: Count
    multipliers: Annotated[tuple[Count, ...], Field(min_length=2)]
    blocks: Count
    attention: tuple[Count, ...] = ()
    heads: Count | None = None
    head_width: Count | None = None
    resblock_updown: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    variance: Literal["learned", "fixed"] = "learned"
    groups: Count = 32

    @model_validator(mode="after")
    def _layers_can_be(self) -> Self:
        if self.base_channels % self.groups:
            raise ValueError(
                f"base_channels {self.base_channels} is no multiple of groups = {self.groups}"
            )
        if (self.heads is None) == (self.head_width is None):
            raise ValueError("give heads or head_width, and not both")
        for multiplier in self.multipliers:
            width = self.base_channels * multiplier
            if width % (self.heads or self.head_width or 1):
                of = f"{self.heads} heads" if self.heads else f"head_width {self.head_width}"
                raise ValueError(f"{of}: does not divide a level's {width} channels")
        return self


class OpenAITraining(DenoiserTraining):
    """class_dropout: the papers drop none. loss: hybrid (Nichol & Dhariwal 2021, eq. 16), or vlb,
    the variational bound alone. times: steps of the schedule are drawn alike, or by the second
    moments of their latest losses (section 3.3), which lowers the noise of the bound's gradient.
    """

    class_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["hybrid", "vlb"] = "hybrid"
    times: Literal["uniform", "loss-second-moment"] = "uniform"

    @model_validator(mode="after")
    def _times_follow_whole_batches(self) -> Self:
        if self.times == "loss-second-moment" and self.accumulation > 1:
            raise ValueError(
                'times = "loss-second-moment" learns from whole batches: leave accumulation 1'
            )
        return self


class OpenAIRecipe(DenoiserRecipe):
    """A base stage, or one that enlarges parents of `low_resolution`: of any family."""

    stage: OpenAIStage
    network: OpenAIShape
    training: OpenAITraining

    @model_validator(mode="after")
    def _network_fits_the_stage(self) -> Self:
        halvings = len(self.network.multipliers) - 1
        side = self.stage.resolution
        if side % 2**halvings:
            raise ValueError(
                f"images of {side} px do not halve {halvings} times, as many as multipliers has "
                "levels after the first"
            )
        sides = [side >> level for level in range(halvings + 1)]
        odd = [at for at in self.network.attention if at not in sides]
        if odd:
            raise ValueError(f"attention {odd[0]} is none of the sides {sides}")
        if self.network.variance == "fixed" and self.training.loss == "vlb":
            raise ValueError('loss = "vlb" learns the variance: set variance = "learned"')
        return self


class ADMRecipe(OpenAIRecipe):
    """Of Improved DDPM, ADM and its upsampler."""
