"""EDM's sampler (Karras et al. 2022, arXiv 2206.00364): Heun's steps, dx/dsigma = (x - D) / sigma.

Algorithm 1, with the noise levels of generation/diffusion/edm_levels.py.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from generation.diffusion.edm_levels import edm_levels
from generation.diffusion.sampler_config import EDM, SamplerConfig
from release.errors import UserError

# Called with x float[N,C,H,W] and sigma; returns E[x0 | x], guidance already applied.
Denoised = Callable[[Tensor, float], Tensor]


def require_edm(config: SamplerConfig, source: object) -> None:
    """UserError for a sampler of other networks, and for settings that have no effect."""
    if config.method != EDM:
        raise UserError(
            f"{source} is sampled over EDM's noise levels: its sampler needs method = {EDM!r}, "
            "steps and guidance"
        )
    if config.threshold != "none":
        raise UserError(f'{source} is sampled unclipped: its sampler needs threshold = "none"')
    if config.noise_augmentation != 0:
        raise UserError(f"{source} knows no noise in parents: leave noise_augmentation 0")


@torch.no_grad()
def edm_sample(denoised: Denoised, steps: int, noise: Tensor) -> Tensor:
    """float[N,C,H,W] from standard normal noise of that shape; 2 * steps - 1 evaluations."""
    levels = [*edm_levels(steps), 0.0]
    x = noise * levels[0]
    for now, after in pairwise(levels):
        slope = (x - denoised(x, now)) / now
        ahead = x + (after - now) * slope
        if after > 0:
            slope = (slope + (ahead - denoised(ahead, after)) / after) / 2
            ahead = x + (after - now) * slope
        x = ahead
    return x
