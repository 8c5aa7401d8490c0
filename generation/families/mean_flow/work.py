"""What improved MeanFlow's published networks take of arithmetic: Geng et al. 2025, table 4."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from generation.families.mean_flow.network import MeanFlowNetwork, MeanFlowPlan
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import STABLE_DIFFUSION

RESOLUTION, SIDE, CHANNELS = 256, 32, 4
SIZES = {  # width, blocks on the way to the mean velocity, heads
    "iMF-B-2.pth": (768, 12, 12),
    "iMF-M-2.pth": (768, 24, 12),
    "iMF-L-2.pth": (1024, 32, 16),
    "iMF-XL-2.pth": (1024, 48, 16),
}


def published_plan(name: str) -> MeanFlowPlan:
    """Of the file of that name; KeyError for another."""
    width, depth, heads = SIZES[name]
    hidden = int(width * 8 / 3)
    return MeanFlowPlan(SIDE, CHANNELS, 1001, 2, width, depth, heads, hidden)


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In float32; None for a name that is not known, or another size."""
    name = Path(checkpoint).name
    if name not in SIZES or resolution != RESOLUTION:
        return None
    with torch.device("meta"):
        network = MeanFlowNetwork(published_plan(name))
        x, one = torch.zeros(1, CHANNELS, SIDE, SIDE), torch.ones(1)
        told = torch.zeros(1, dtype=torch.int64)
        evaluation = counted_flops(lambda: network(x, one, told, one, (one, one)))
    decoding = decoding_flops(AutoencoderKL, STABLE_DIFFUSION, CHANNELS, SIDE)
    return Work(evaluation, decoding, precision="single")
