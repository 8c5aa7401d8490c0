"""The recipes of VQ-VAE-2: of its autoencoder, and of the two priors on its codes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import Table
from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe

Count = Annotated[int, Field(ge=1)]
TOP, BOTTOM = 8, 4  # pixels a side of a code


class HierarchyStage(Table):
    """resolution: side of the images in px, a multiple of 8. channels: 1 for grey images, 3 for
    colour; left out, what the data has."""

    resolution: Annotated[int, Field(gt=0, multiple_of=TOP)]
    channels: Literal[1, 3] | None = None


class HierarchyShape(Table):
    """hidden: channels of the convolutions; residual: within their residual blocks, of which there
    are `blocks` in each stack. codes: vectors of each codebook, of `width` numbers."""

    hidden: Annotated[int, Field(ge=2, multiple_of=2)]
    residual: Count
    blocks: Count
    codes: Annotated[int, Field(ge=2)]
    width: Count


class HierarchyTraining(TrainingConfig):
    """commitment: weight of the latents' distance from their codes. decay: of the codes' averages,
    which follow the latents."""

    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    flip: bool = False
    commitment: Annotated[float, Field(ge=0)] = 0.25
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99


class StagedRecipe(TrainingRecipe):
    """Of images at one resolution."""

    stage: HierarchyStage

    def with_channels(self, channels: int) -> Self:
        """For images of so many channels."""
        stage = self.stage.model_copy(update={"channels": channels})
        return self.model_copy(update={"stage": stage})


class HierarchyRecipe(StagedRecipe):
    """Of the autoencoder."""

    network: HierarchyShape
    training: HierarchyTraining


class PriorStage(HierarchyStage):
    """autoencoder: the folder that its training wrote, OUT/checkpoint; codes: of each of its
    codebooks. sha256: of its files; filled in."""

    autoencoder: str
    codes: Annotated[int, Field(ge=2)]
    sha256: str = ""


class PriorShape(Table):
    """hidden: channels; residual: within its residual blocks. layers: those blocks; attention: so
    many attention layers among them, of `heads` heads. kernel: side of what a block sees, less than
    half of which is right of or below a code. output: residual blocks of single codes at the end.
    told: residual blocks on the codes of the level above, of a bottom prior. dropout: share of
    dropped units."""

    hidden: Count
    residual: Count
    layers: Count
    attention: Annotated[int, Field(ge=0)] = 0
    heads: Count = 1
    kernel: Annotated[int, Field(ge=3)] = 5
    output: Annotated[int, Field(ge=0)] = 0
    told: Annotated[int, Field(ge=0)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even: it needs a middle")
        if self.attention and self.layers % self.attention:
            raise ValueError(
                f"{self.layers} layers do not part into {self.attention} with attention"
            )
        if self.hidden % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {self.hidden} channels")
        return self


class PriorShapes(Table):
    """Of the prior on the top codes, and of the one on the bottom codes, which is told the top."""

    top: PriorShape
    bottom: PriorShape


class PriorTraining(TrainingConfig):
    """flip: mirror half of the images."""

    flip: bool = False


class PriorRecipe(StagedRecipe):
    """Of the two priors."""

    stage: PriorStage
    network: PriorShapes
    training: PriorTraining
