"""SR3 as generators and trainings name it."""

from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.denoisers.source import DenoiserSource
from generation.denoisers.trainable import DenoiserTrainable
from generation.families.sr3.recipe import SR3Recipe

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.sr3.network import SR3

    return SR3(config)


def _loss(_: DenoiserRecipe) -> "Loss":
    from generation.families.sr3.objective import continuous_loss

    return continuous_loss


FAMILY = Family("sr3", SR3Recipe, _network, _loss, enlarges=True)
GENERATOR = DenoiserSource(FAMILY)
TRAINABLE = DenoiserTrainable(FAMILY)
