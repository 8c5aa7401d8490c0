"""Sampling class-conditional latent diffusion (Rombach et al. 2022): LDM-4 on ImageNet.

As in the paper's code: the class is the one token the U-Net looks at, the null class the last one;
the VQ decoder quantises a latent before it decodes it; noise falls along their schedule. Where it
differs: steps are spread from T - 1 to 0, the noisiest included (the paper's code starts at 997 of
999 with 250 steps), and each image's noise comes from its own seed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation.diffusion.guidance import always
from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import Denoiser, sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import acting
from generation.families.adm.shapes import Heads
from generation.families.latent_diffusion.converter import convert_latent_diffusion
from generation.families.latent_diffusion.recipe import SCHEDULE
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.components import (
    decode_latents,
    require_first_stage,
    require_labels,
    require_of_latents,
)
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

# What the tensors of cin256-v2 do not tell, as its published configuration has it.
HEADS = Heads(count=1)


class LatentDiffusion(DecodingGenerator):
    """Samples the U-Net and decodes its latents."""

    def __init__(self, file: Path, placement: Placement) -> None:
        self._file = file
        self._placement = placement
        self._schedule = NoiseSchedule(SCHEDULE)
        networks = convert_latent_diffusion(read_tensors(file), HEADS, self._schedule, str(file))
        self._classes = networks.classes.to(placement.device)
        self._unet = placement.place(networks.unet)
        # bfloat16's steps are wider than a pixel's: decode in float32
        self._vae = networks.autoencoder.to(placement.device)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w]; UserError for labels, parents or settings that do not fit."""
        self._check(batch, settings)
        device, config = self._placement.device, self._unet.config
        labels = torch.tensor(list(batch.labels), device=device)
        shape = (config.in_channels, config.sample_size, config.sample_size)
        denoise = guided_denoiser(
            *(self._unet, self._classes, labels, settings.guidance, self._placement.dtype),
            acting(self._schedule, settings),
        )
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, shape)) as noise:
            return sample(
                denoise,
                self._schedule,
                "epsilon",
                settings,
                lambda: torch.from_numpy(noise()).to(device),
            )

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        return decode_latents(self._vae, latents)

    def _check(self, batch: ImageBatch, settings: SamplerConfig) -> None:
        require_first_stage(batch, self._file)
        require_labels(batch, len(self._classes) - 1, self._file)
        require_of_latents(settings, self._file)
        if settings.noise_augmentation != 0:
            raise UserError(f"{self._file} was trained without noise_augmentation: leave it 0")


def guided_denoiser(
    unet: Any,
    classes: Tensor,
    labels: Tensor,
    guidance: float,
    dtype: torch.dtype,
    acts: Callable[[int], bool] = always,
) -> Denoiser:
    """Bind labels int64[N] and guidance w: uncond + w * (cond - uncond), both halves as one batch.

    classes float[C + 1, D], the null class last. w = 1 runs the conditional half alone, and so does
    a step at which guidance does not act.
    """
    n = len(labels)
    rows = torch.cat([labels, torch.full_like(labels, len(classes) - 1)])
    context = classes[rows][:, None].to(dtype)  # [2N, 1, D]

    def denoise(x: Tensor, t: int) -> tuple[Tensor, None]:
        both = guidance != 1 and acts(t)
        inputs = (torch.cat([x, x]) if both else x).to(dtype, memory_format=torch.channels_last)
        times = torch.full((len(inputs),), t, device=x.device)
        out = unet(inputs, times, context[: len(inputs)], return_dict=False)[0].to(x.dtype)
        if not both:
            return out, None
        return out[n:] + guidance * (out[:n] - out[n:]), None

    return denoise
