"""A pixel U-Net bound to its conditions and parents, as the sampler calls it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from generation.diffusion.guidance import autoguided, guided
from generation.diffusion.sampler import Denoiser
from generation.families.pixel_unet.network import PixelUNet


def bound_denoiser(
    network: PixelUNet,
    guide: PixelUNet | None,
    prompts: Sequence[str],
    guidance: float,
    parent: Tensor | None,
    level: float,
) -> Denoiser:
    """`network` bound to a batch: guided by `guide`, else by itself, told nothing."""

    def bound(one: PixelUNet, weight: float) -> Denoiser:
        told = one.conditions(prompts).to(one.prompt_tokens.device)
        return guided_denoiser(one, told, weight, parent, level)

    if guide is None:
        return bound(network, guidance)
    return autoguided(bound(network, 1.0), bound(guide, 1.0), guidance)


def guided_denoiser(
    network: PixelUNet, prompt: Tensor, guidance: float, parent: Tensor | None, level: float
) -> Denoiser:
    """Bind conditioning, classifier-free guidance and the parent with its augmentation level."""
    step = level * network.config.schedule.num_steps

    def evaluate(
        x: Tensor, t: Tensor, told: Tensor, parents: Tensor | None, _: None
    ) -> tuple[Tensor, None]:
        augmentation = told.new_full((len(x),), step, dtype=torch.float32)
        return network(x, t, told, parents, augmentation), None

    return guided(evaluate, prompt, len(network.prompts.prompts) - 1, guidance, parent)
