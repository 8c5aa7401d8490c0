"""The recipe of an autoencoder with a codebook."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import Table
from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class AutoencoderStage(Table):
    """resolution: side of the images in px. channels: 1 for grey images, 3 for colour; left out,
    what the data has."""

    resolution: Count
    channels: Literal[1, 3] | None = None


class AutoencoderShape(Table):
    """base_channels, multipliers: channels of a level are their product, a multiple of `groups`,
    which the norms have; each level has half the side of the one before, and the last one's is that
    of the latents. blocks: residual blocks of each level of the encoder; the decoder has one more.
    codes: vectors of the codebook, of `latent_channels` numbers each. attention: in the middle of
    both halves. groups: of every norm.
    """

    base_channels: Count
    multipliers: Annotated[tuple[Count, ...], Field(min_length=1)]
    blocks: Count
    latent_channels: Count
    codes: Annotated[int, Field(ge=2)]
    attention: bool = False
    groups: Count = 32

    @model_validator(mode="after")
    def _norms_have_groups(self) -> Self:
        if self.base_channels % self.groups:
            raise ValueError(
                f"base_channels {self.base_channels} is no multiple of groups = {self.groups}"
            )
        return self


class AutoencoderTraining(TrainingConfig):
    """reconstruction: l1 or l2, what the difference of pixels costs. codebook: weight of what pulls
    codes and latents together; commitment: the latents' share of it. adversarial: weight of a
    discriminator of patches, 0 for none, which begins at step adversarial_start;
    discriminator_channels, discriminator_layers: of its first layer, and its halvings.
    """

    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    flip: bool = False
    reconstruction: Literal["l1", "l2"] = "l1"
    codebook: Weight = 1.0
    commitment: Weight = 0.25
    adversarial: Weight = 0.0
    adversarial_start: Annotated[int, Field(ge=0)] = 0
    discriminator_channels: Count = 64
    discriminator_layers: Count = 3


class AutoencoderRecipe(TrainingRecipe):
    """Of images at one resolution."""

    stage: AutoencoderStage
    network: AutoencoderShape
    training: AutoencoderTraining

    @model_validator(mode="after")
    def _sides_halve(self) -> Self:
        halvings = len(self.network.multipliers) - 1
        if self.stage.resolution % 2**halvings:
            raise ValueError(
                f"images of {self.stage.resolution} px do not halve {halvings} times, as many as "
                "multipliers has levels after the first"
            )
        return self

    def with_channels(self, channels: int) -> Self:
        """For images of so many channels."""
        stage = self.stage.model_copy(update={"channels": channels})
        return self.model_copy(update={"stage": stage})
