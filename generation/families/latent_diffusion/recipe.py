"""What a recipe of latent diffusion says beside what those of all denoisers say."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from generation.denoisers.latents import LatentStage
from generation.denoisers.recipe import DenoiserRecipe, Table
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import ScheduleConfig

Count = Annotated[int, Field(ge=1)]
# "linear" in the authors' code: beta's root is linear
SCHEDULE = ScheduleConfig(name="scaled-linear", num_steps=1000, beta_start=0.0015, beta_end=0.0195)


class LatentDiffusionStage(LatentStage):
    """A network that says epsilon."""

    prediction: Prediction = "epsilon"
    schedule: ScheduleConfig = SCHEDULE

    @model_validator(mode="after")
    def _says_epsilon(self) -> Self:
        if self.prediction != "epsilon":
            raise ValueError("latent diffusion predicts epsilon: leave prediction out")
        return self


class LatentDiffusionShape(Table):
    """base_channels, multipliers: channels of a level are their product, a multiple of `groups`,
    which the norms have; each level has half the side of the one before. blocks: residual blocks of
    each level. attention: sides of feature maps with transformer blocks, of `heads` heads, `depth`
    in a row, which look at the class, a vector of `context` numbers. groups: of every norm.
    """

    base_channels: Count
    multipliers: Annotated[tuple[Count, ...], Field(min_length=2)]
    blocks: Count
    attention: tuple[Count, ...]
    heads: Count = 1
    depth: Count = 1
    context: Count = 512
    groups: Count = 32

    @model_validator(mode="after")
    def _norms_have_groups(self) -> Self:
        if self.base_channels % self.groups:
            raise ValueError(
                f"base_channels {self.base_channels} is no multiple of groups = {self.groups}"
            )
        return self


class LatentDiffusionRecipe(DenoiserRecipe):
    """On latents, or on pixels."""

    stage: LatentDiffusionStage
    network: LatentDiffusionShape

    @model_validator(mode="after")
    def _sides_halve(self) -> Self:
        latents, halvings = self.stage.latents, len(self.network.multipliers) - 1
        side = self.stage.resolution if latents is None else latents.side
        if side % 2**halvings:
            raise ValueError(
                f"a side of {side} does not halve {halvings} times, as many as multipliers has "
                "levels after the first"
            )
        sides = [side >> level for level in range(halvings + 1)]
        odd = [at for at in self.network.attention if at not in sides]
        if odd:
            raise ValueError(f"attention {odd[0]} is none of the sides {sides}")
        if sides[-1] not in self.network.attention:
            raise ValueError(f"the coarsest level, of side {sides[-1]}, needs attention")
        return self
