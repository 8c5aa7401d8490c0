"""What LightningDiT takes of arithmetic, before there are weights."""

from pathlib import Path

import torch

from generation.families.lightning_dit.network import LightningNetwork, LightningPlan
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import VA_VAE

RESOLUTION, GRID, CHANNELS = 256, 16, 32
SIZES = {  # width, depth, heads
    "lightningdit-xl-imagenet256-800ep.pt": (1152, 28, 16),
    "lightningdit-xl-imagenet256-64ep.pt": (1152, 28, 16),
}


def published_plan(name: str) -> LightningPlan:
    """Of the file of that name; KeyError for another."""
    width, depth, heads = SIZES[name]
    return LightningPlan(GRID, CHANNELS, 1001, patch=1, width=width, depth=depth, heads=heads)


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    from diffusers import AutoencoderKL

    name = Path(checkpoint).name
    if name not in SIZES or resolution != RESOLUTION:
        return None
    with torch.device("meta"):
        network = LightningNetwork(published_plan(name))
        x, time = torch.zeros(1, CHANNELS, GRID, GRID), torch.zeros(1)
        told = torch.zeros(1, dtype=torch.int64)
        evaluation = counted_flops(lambda: network(x, time, told))
    return Work(evaluation, decoding_flops(AutoencoderKL, VA_VAE, CHANNELS, GRID))
