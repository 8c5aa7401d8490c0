"""What MAR takes of arithmetic, before there are weights.

One evaluation is a step of the published 256: the encoder at its mean length, the decoder, and the
100 diffusion steps of one token.
"""

from pathlib import Path

import torch

from generation.families.mar.network import MAR
from generation.families.mar.plan import PUBLISHED, MARPlan
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import KL_16

RESOLUTION, DIFFUSION_STEPS = 256, 100


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    from diffusers import AutoencoderKL

    plan = PUBLISHED.get(Path(checkpoint).name)
    if plan is None or resolution != RESOLUTION:
        return None
    decoding = decoding_flops(AutoencoderKL, KL_16, plan.channels, plan.grid)
    return Work(step_flops(plan), decoding)


def step_flops(plan: MARPlan) -> int:
    """Of one image."""
    with torch.device("meta"):
        network = MAR(plan)
        tokens = torch.zeros(1, plan.tokens, plan.channels)
        known = torch.zeros(1, plan.tokens // 2, dtype=torch.int64)
        asked, condition = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        times = torch.zeros(DIFFUSION_STEPS)
        noisy = torch.zeros(DIFFUSION_STEPS, plan.channels)

        def run() -> None:
            told = network(tokens, known, asked, condition)
            network.denoiser(noisy, times, told[0].expand(DIFFUSION_STEPS, -1))

        return counted_flops(run)
