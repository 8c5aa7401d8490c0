"""What a recipe of SR3 says beside what those of all denoisers say."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import DenoiserRecipe, DenoiserTraining, Table

Count = Annotated[int, Field(ge=1)]


class SR3Shape(Table):
    """base_channels, multipliers: channels of a level are their product; each level has half the
    side of the one before. blocks: residual blocks of each level. attention: sides of feature maps
    that have self-attention, of `heads` heads. dropout: share of dropped units. groups: of the
    norms, or as many as divide narrower layers.
    """

    base_channels: Count
    multipliers: Annotated[tuple[Count, ...], Field(min_length=2)]
    blocks: Count
    attention: tuple[Count, ...] = ()
    heads: Count = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    groups: Count = 32


class SR3Recipe(DenoiserRecipe):
    """A base stage, or one that enlarges parents of `low_resolution`; it predicts epsilon."""

    network: SR3Shape
    training: DenoiserTraining

    @model_validator(mode="after")
    def _is_of_the_paper(self) -> Self:
        if self.stage.prediction != "epsilon":
            raise ValueError("SR3 predicts epsilon")
        halvings = len(self.network.multipliers) - 1
        if self.stage.resolution % 2**halvings:
            raise ValueError(
                f"images of {self.stage.resolution} px do not halve {halvings} times, as many as "
                "multipliers has levels after the first"
            )
        return self
