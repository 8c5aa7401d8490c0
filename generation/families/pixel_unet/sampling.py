"""A pixel U-Net bound to its conditions and parents, as the sampler calls it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generation.diffusion.guidance import always, autoguided, guided
from generation.diffusion.sampler import Denoiser
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import acting
from generation.families.pixel_unet.network import PixelUNet


def bound_denoiser(
    network: PixelUNet,
    guide: PixelUNet | None,
    prompts: Sequence[str],
    settings: SamplerConfig,
    parent: Tensor | None,
) -> Denoiser:
    """`network` bound to a batch: guided by `guide`, else by itself, told nothing.

    parent: with the noise that the settings name already added.
    """
    acts = acting(NoiseSchedule(network.config.schedule), settings)
    level = settings.noise_augmentation

    def bound(one: PixelUNet, weight: float) -> Denoiser:
        told = one.conditions(prompts).to(one.prompt_tokens.device)
        return guided_denoiser(one, told, weight, parent, level, acts)

    if guide is None:
        return bound(network, settings.guidance)
    return autoguided(bound(network, 1.0), bound(guide, 1.0), settings.guidance, acts)


def guided_denoiser(
    network: PixelUNet,
    prompt: Tensor,
    guidance: float,
    parent: Tensor | None,
    level: float,
    acts: Callable[[int], bool] = always,
) -> Denoiser:
    """Bind conditioning, classifier-free guidance and the parent with its augmentation level."""
    step = level * network.config.schedule.num_steps

    def evaluate(
        x: Tensor, t: Tensor, told: Tensor, parents: Tensor | None, _: None
    ) -> tuple[Tensor, None]:
        augmentation = told.new_full((len(x),), step, dtype=torch.float32)
        return network(x, t, told, parents, augmentation), None

    return guided(evaluate, prompt, len(network.prompts.prompts) - 1, guidance, parent, acts)
