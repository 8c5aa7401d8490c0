"""The recipe of a BigGAN-deep."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from generation.denoisers.recipe import Table
from generation.families.biggan.generator import START
from generation.training.config import Beta, TrainingConfig
from generation.training.recipe import TrainingRecipe

Count = Annotated[int, Field(ge=1)]
Layer = tuple[bool, Count, Count]
Layers = Annotated[tuple[Layer, ...], Field(min_length=1)]
SMALLEST = 8  # channels of an attention layer, which divides them by that


class BigGANStage(Table):
    """resolution: side of the images in px. They are learned in colour, grey ones too."""

    resolution: Count


class BigGANShape(Table):
    """z_dim: numbers of the noise, and of a class. channel_width: what widths are counted in.
    layers: blocks of the generator, each (doubles the side, its width, the next one's).
    discriminator: its blocks, each (halves the side, its width, the next one's).
    attention, discriminator_attention: the block that attention stands before. statistics: rows of
    standing statistics, for truncations from 0 to 1."""

    z_dim: Count = 128
    channel_width: Count
    layers: Layers
    discriminator: Layers
    attention: Annotated[int, Field(ge=0)]
    discriminator_attention: Annotated[int, Field(ge=0)]
    statistics: Annotated[int, Field(ge=2)] = 51

    @model_validator(mode="after")
    def _follow_each_other(self) -> Self:
        for name, layers in (("layers", self.layers), ("discriminator", self.discriminator)):
            for (*_, after), (_, before, _) in pairwise(layers):
                if after != before:
                    found = f"a block makes {after} widths, the next takes {before}"
                    raise ValueError(f"{name}: {found}")
        if any(after > before for _, before, after in self.layers):
            raise ValueError("layers: a generator's block cannot widen, as its skip drops channels")
        if any(after < before for _, before, after in self.discriminator):
            raise ValueError("discriminator: a block cannot narrow, as its skip adds channels")
        for name, at, layers in (
            ("attention", self.attention, self.layers),
            ("discriminator_attention", self.discriminator_attention, self.discriminator),
        ):
            if at >= len(layers):
                raise ValueError(f"{name} {at}: there are {len(layers)} blocks, counted from 0")
            if layers[at][1] * self.channel_width < SMALLEST:
                raise ValueError(f"{name} {at} has fewer than {SMALLEST} channels")
        return self


class BigGANTraining(TrainingConfig):
    """learning_rate: the generator's; discriminator_rate: times that is the discriminator's.
    discriminator_steps: of the latter for one of the former. orthogonal: weight of what keeps the
    generator's filters apart. standing_batches: batches that standing statistics are the mean of.
    """

    betas: tuple[Beta, Beta] | None = (0.0, 0.999)
    flip: bool = False
    discriminator_rate: Annotated[float, Field(gt=0)] = 4.0
    discriminator_steps: Count = 2
    orthogonal: Annotated[float, Field(ge=0)] = 1e-4
    standing_batches: Count = 16


class BigGANRecipe(TrainingRecipe):
    """Of images at one resolution."""

    stage: BigGANStage
    network: BigGANShape
    training: BigGANTraining

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        side = START * 2 ** sum(doubles for doubles, *_ in self.network.layers)
        if side != self.stage.resolution:
            raise ValueError(
                f"[network] layers make images of {side} px, not of {self.stage.resolution}"
            )
        halvings = sum(halves for halves, *_ in self.network.discriminator)
        if self.stage.resolution % 2**halvings:
            raise ValueError(f"images of {self.stage.resolution} px do not halve {halvings} times")
        return self
