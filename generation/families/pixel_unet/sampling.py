"""A pixel U-Net bound to its conditions and parents, as the sampler calls it."""

import torch
from torch import Tensor

from generation.diffusion.guidance import guided
from generation.diffusion.sampler import Denoiser
from generation.families.pixel_unet.network import PixelUNet


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
