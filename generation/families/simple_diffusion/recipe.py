"""What a recipe of Simple Diffusion says beside what those of all denoisers say."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import DenoiserRecipe, DenoiserTraining, Table

Count = Annotated[int, Field(ge=1)]


class Levels(Table):
    """What both networks have. Feature maps have half the side from one level to the next.

    base_channels, multipliers: channels of a level are their product. embedding: width of the
    vector that tells noise level and class. blocks: residual blocks of each convolutional level.
    heads: of self-attention. dropout: share of dropped units, where the network has dropout.
    wavelet: how often a 5/3 wavelet halves the images before the first level. groups: of the norms,
    or as many as divide narrower layers.
    """

    base_channels: Count
    embedding: Count
    multipliers: Annotated[tuple[Count, ...], Field(min_length=2)]
    blocks: tuple[Count, ...]
    heads: Count = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    wavelet: Annotated[int, Field(ge=0)] = 0
    groups: Count = 32

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.base_channels * multiplier for multiplier in self.multipliers]

    def sides(self, resolution: int) -> list[int]:
        """Of each level's feature maps; ValueError if the images do not halve that often."""
        halvings = self.wavelet + len(self.multipliers) - 1
        if resolution % 2**halvings:
            raise ValueError(f"images of {resolution} px do not halve {halvings} times")
        return [resolution >> (self.wavelet + level) for level in range(len(self.multipliers))]


class UNetShape(Levels):
    """attention: sides of feature maps that have self-attention. dropout_side: greatest side of
    those whose residual blocks have dropout."""

    kind: Literal["unet"]
    attention: tuple[Count, ...] = ()
    dropout_side: Count = 16

    def dropout_at(self, side: int) -> float:
        """Of residual blocks whose feature maps have that side."""
        return self.dropout if side <= self.dropout_side else 0.0

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.blocks) != len(self.multipliers):
            raise ValueError("blocks and multipliers must name as many levels")
        return self


class UViTShape(Levels):
    """The last of `multipliers` is the transformer's, which alone has dropout."""

    kind: Literal["uvit"]
    transformer_blocks: Count

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.blocks) != len(self.multipliers) - 1:
            raise ValueError(
                "blocks names the levels before the transformer's: one fewer than multipliers"
            )
        return self


class SimpleDiffusionTraining(DenoiserTraining):
    """error: of epsilon or of v, whichever the squares are taken of; the network predicts v.

    multiscale: the least side at which the error is squared, each doubling of it another; None for
    the images' own side alone.
    """

    error: Literal["epsilon", "v"] = "epsilon"
    multiscale: Count | None = None


class SimpleDiffusionRecipe(DenoiserRecipe):
    """[network] is a U-Net (kind = "unet") or a U-ViT (kind = "uvit")."""

    network: Annotated[UNetShape | UViTShape, Field(discriminator="kind")]
    training: SimpleDiffusionTraining

    @model_validator(mode="after")
    def _is_of_the_paper(self) -> Self:
        stage, least = self.stage, self.training.multiscale
        if stage.prediction != "v" or stage.low_resolution is not None:
            raise ValueError("Simple Diffusion predicts v, from no parent image")
        if least is not None and stage.resolution not in [least << i for i in range(16)]:
            raise ValueError(
                f"multiscale = {least} does not double to the resolution {stage.resolution}"
            )
        return self
