"""Simple Diffusion as generators and trainings name it."""

from typing import TYPE_CHECKING

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe
from generation.denoisers.source import PixelSource
from generation.denoisers.trainable import DenoiserTrainable
from generation.families.simple_diffusion.recipe import SimpleDiffusionRecipe, UViTShape

if TYPE_CHECKING:
    from generation.denoisers.learning import Loss
    from generation.denoisers.network import Denoiser


def _network(config: DenoiserConfig) -> "Denoiser":
    from generation.families.simple_diffusion.unet import UNet
    from generation.families.simple_diffusion.uvit import UViT

    return UViT(config) if isinstance(config.network, UViTShape) else UNet(config)


def _loss(recipe: DenoiserRecipe) -> "Loss":
    from generation.families.simple_diffusion.objective import multiscale_loss

    assert isinstance(recipe, SimpleDiffusionRecipe)
    return multiscale_loss(recipe)


FAMILY = Family("simple-diffusion", SimpleDiffusionRecipe, _network, _loss)
GENERATOR = PixelSource(FAMILY)
TRAINABLE = DenoiserTrainable(FAMILY)
