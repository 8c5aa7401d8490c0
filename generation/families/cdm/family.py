"""CDM as generators and trainings name it."""

from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.families.cdm.recipe import CDMRecipe
from generation.families.openai_unet.family import GuidedSource, OpenAITrainable

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser
    from generation.generator import Generator


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.cdm.network import CDMUNet

    return CDMUNet(config)


def _generator(network: "Denoiser", guide: "Denoiser | None" = None) -> "Generator":
    from generation.families.cdm.sampling import CascadeGenerator

    return CascadeGenerator(network, guide)


def _loss(recipe: DenoiserRecipe) -> "Loss":
    from generation.families.cdm.objective import cascade_loss

    assert isinstance(recipe, CDMRecipe)
    return cascade_loss(recipe)


FAMILY = Family("cdm", CDMRecipe, _network, _loss, enlarges=True, generator=_generator)
GENERATOR = GuidedSource(FAMILY)
TRAINABLE = OpenAITrainable(FAMILY)
