"""RIN as generators and trainings name it."""

from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.denoisers.source import PixelSource
from generation.denoisers.trainable import DenoiserTrainable
from generation.families.rin.recipe import RINRecipe

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.rin.network import RIN

    return RIN(config)


def _loss(recipe: DenoiserRecipe) -> "Loss":
    from generation.families.rin.objective import self_conditioned_loss

    assert isinstance(recipe, RINRecipe)
    return self_conditioned_loss(recipe.training.self_conditioning)


FAMILY = Family("rin", RINRecipe, _network, _loss)
GENERATOR = PixelSource(FAMILY)
TRAINABLE = DenoiserTrainable(FAMILY)
