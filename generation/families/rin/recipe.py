"""What a recipe of a RIN says beside what those of all denoisers say."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import DenoiserRecipe, DenoiserTraining, Table

Count = Annotated[int, Field(ge=1)]


class RINShape(Table):
    """The interface: a token each `patch` by `patch` pixels, of `interface_width` channels.

    latents, latent_width: tokens of the latents, noise level and class among them; their channels.
    blocks: self-attention layers of each block. heads: of those layers; routing_heads: of reading
    and writing. expansion: of the MLPs.
    """

    patch: Count
    interface_width: Count
    latents: Annotated[int, Field(ge=3)]
    latent_width: Annotated[int, Field(ge=8, multiple_of=8)]
    blocks: Annotated[tuple[Count, ...], Field(min_length=1)]
    heads: Count = 16
    routing_heads: Count = 16
    expansion: Count = 4


class RINTraining(DenoiserTraining):
    """self_conditioning: share of images whose latents are given by a first pass, without gradient;
    the others begin with none."""

    self_conditioning: Annotated[float, Field(ge=0, le=1)] = 0.9


class RINRecipe(DenoiserRecipe):
    """A base stage; the paper's predict epsilon."""

    network: RINShape
    training: RINTraining

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.stage.resolution % self.network.patch:
            raise ValueError(
                f"patch {self.network.patch} does not divide resolution {self.stage.resolution}"
            )
        if self.stage.low_resolution is not None:
            raise ValueError("a RIN enlarges no parent image: leave low_resolution out")
        return self
