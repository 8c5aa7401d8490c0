"""A family of class-conditional denoising networks: all that is its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser


@dataclass(frozen=True)
class Family:
    """name: by which recipes and checkpoints name it. recipe: of its trainings. enlarges: whether
    its stages may have parents.

    network: makes an untrained one; ValueError for a shape that cannot be. loss: what it learns by,
    given a recipe. Both import torch when they are called, not before.
    """

    name: str
    recipe: type[DenoiserRecipe]
    network: "Callable[[DenoiserConfig], Denoiser]"
    loss: "Callable[[DenoiserRecipe], Loss]"
    enlarges: bool = False
