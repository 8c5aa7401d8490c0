"""Latent diffusion as generators and trainings name it."""

from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.latents import LatentTrainable
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.latent_diffusion.recipe import LatentDiffusionRecipe
from generation.families.latent_diffusion.source import LatentDiffusionSource

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser
    from generation.generator import Generator


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.latent_diffusion.network import LatentUNet

    return LatentUNet(config)


def _generator(network: "Denoiser", guide: "Denoiser | None" = None) -> "Generator":
    from generation.denoisers.latent_sampling import LatentGenerator

    return LatentGenerator(network, guide)


def _loss(_: DenoiserRecipe) -> "Loss":
    from generation.families.latent_diffusion.objective import noise_loss

    return noise_loss


FAMILY = Family(
    "ldm",
    LatentDiffusionRecipe,
    _network,
    _loss,
    generator=_generator,
    preview=SamplerConfig(method="dpm-solver++", steps=12, threshold="none"),
)
GENERATOR = LatentDiffusionSource(FAMILY)
TRAINABLE = LatentTrainable(FAMILY)
