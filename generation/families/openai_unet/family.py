"""These U-Nets as generators and trainings name them: adm."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.denoisers.source import PixelSource
from generation.denoisers.trainable import DenoiserTrainable
from generation.families.openai_unet.recipe import ADMRecipe, OpenAIRecipe

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser
    from generation.generator import Generator


@dataclass
class GuidedSource(PixelSource):
    """A generator that a classifier may guide."""

    CLASSIFIER_GUIDED = True


@dataclass(frozen=True)
class OpenAITrainable(DenoiserTrainable):
    """How `finetune-generator` trains these U-Nets."""

    def starting_network(self, recipe: DenoiserRecipe, start: str | None) -> "Denoiser":
        """What is trained, with the losses by which it draws steps where the recipe says so."""
        from generation.denoisers.loss_history import LossHistory

        network = super().starting_network(recipe, start)
        assert isinstance(recipe, OpenAIRecipe)
        if recipe.training.times == "loss-second-moment":
            network.history = LossHistory(recipe.stage.schedule.num_steps)
        return network


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.openai_unet.network import OpenAIUNet

    return OpenAIUNet(config)


def _generator(network: "Denoiser", guide: "Denoiser | None" = None) -> "Generator":
    from generation.families.openai_unet.sampling import GuidedGenerator

    return GuidedGenerator(network, guide)


def _loss(recipe: DenoiserRecipe) -> "Loss":
    from generation.families.openai_unet.objective import variance_loss

    assert isinstance(recipe, OpenAIRecipe)
    return variance_loss(recipe.training)


FAMILY = Family("adm", ADMRecipe, _network, _loss, enlarges=True, generator=_generator)
GENERATOR = GuidedSource(FAMILY)
TRAINABLE = OpenAITrainable(FAMILY)
