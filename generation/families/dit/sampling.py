"""Sampling DiT (Peebles & Xie 2023), the network diffusers', the loop this project's.

Where it differs from diffusers' DiTPipeline, and agrees with the paper's code:
- the learned variance is used (Nichol & Dhariwal 2021, eq. 15); the pipeline drops it;
- guidance acts on the first three latent channels, the fourth is the conditional half's;
- times are embedded with the frequencies the weights were trained with, 10000^(-i/128); diffusers
  takes i/127.
And unlike both, each image's noise comes from its own seed.
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
from generation.diffusion.steps import acting
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.components import (
    decode_latents,
    load_component,
    require_first_stage,
    require_labels,
    require_of_latents,
)
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.diffusers_folder import noise_schedule
from release.errors import UserError

GUIDED = 3  # channels; the paper's code guides these alone, for reproducibility of its numbers


class DiT(DecodingGenerator):
    """Samples a class-conditional DiT and decodes its latents."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        from diffusers import AutoencoderKL, DiTTransformer2DModel

        self._folder = folder
        self._device = placement.device
        self._dtype = placement.dtype
        transformer = load_component(DiTTransformer2DModel, folder / "transformer", self._dtype)
        self._transformer = placement.place(embed_times_as_trained(transformer))
        # bfloat16's steps are wider than a pixel's: decode in float32
        self._vae = load_component(AutoencoderKL, folder / "vae", torch.float32).to(self._device)
        self._schedule, self._kind = noise_schedule(folder / "scheduler")

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w]; UserError for labels, parents or settings that do not fit."""
        self._check(batch, settings)
        config = self._transformer.config
        labels = torch.tensor(list(batch.labels), device=self._device)
        shape = (config.in_channels, config.sample_size, config.sample_size)
        acts = acting(self._schedule, settings)
        denoise = guided_denoiser(self._transformer, labels, settings.guidance, self._dtype, acts)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, shape)) as noise:
            return sample(
                denoise,
                self._schedule,
                self._kind,
                settings,
                lambda: torch.from_numpy(noise()).to(self._device),
            )

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        return decode_latents(self._vae, latents)

    def _check(self, batch: ImageBatch, settings: SamplerConfig) -> None:
        require_first_stage(batch, self._folder)
        require_labels(batch, self._transformer.config.num_embeds_ada_norm, self._folder)
        if settings.gamma != 0:
            raise UserError(f"{self._folder} learned its variance: gamma has no effect, leave it 0")
        require_of_latents(settings, self._folder)


def embed_times_as_trained(transformer: Any) -> Any:
    """`transformer` with its time frequencies at 10000^(-i/128), as DiT's own code has them."""
    for block in transformer.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return transformer


def guided_denoiser(
    transformer: Any,
    labels: Tensor,
    guidance: float,
    dtype: torch.dtype,
    acts: Callable[[int], bool] = always,
) -> Denoiser:
    """Bind labels int64[N] and guidance w: uncond + w * (cond - uncond), both halves as one batch.

    The null class stands after the last class. w = 1 runs the conditional half alone, and so does a
    step at which guidance does not act.
    """
    n = len(labels)
    null = torch.full_like(labels, transformer.config.num_embeds_ada_norm)

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        channels, both = x.shape[1], guidance != 1 and acts(t)
        classes = torch.cat([labels, null]) if both else labels
        inputs = (torch.cat([x, x]) if both else x).to(dtype)
        times = torch.full((len(classes),), t, device=x.device)
        out = transformer(inputs, times, classes, return_dict=False)[0].to(x.dtype)
        conditional, v = out[:n, :channels], out[:n, channels:]
        if both:
            guided, rest = conditional[:, :GUIDED], conditional[:, GUIDED:]
            unconditional = out[n:, :GUIDED]
            guided = unconditional + guidance * (guided - unconditional)
            conditional = torch.cat([guided, rest], dim=1)
        return conditional, v if v.shape[1] else None

    return denoise
