"""What DiT^DH takes of arithmetic, before there are weights."""

from pathlib import Path

import torch

from generation.families.rae.network import DiTDHNetwork, DiTDHPlan, PartPlan
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import RAE_DINOV2

RESOLUTION, SIDE, CHANNELS = 256, 16, 768
HEAD = PartPlan(2048, 2, 16)
PUBLISHED = {  # by file, the deep part
    "RAE-DiTDH-XL-256x256.pt": PartPlan(1152, 28, 16),
    "RAE-DiTDH-S-14ep-256x256.pt": PartPlan(384, 12, 6),  # the guide
}


def published_plan(name: str) -> DiTDHPlan:
    """Of the file of that name; KeyError for another."""
    return DiTDHPlan(SIDE, CHANNELS, 1001, PUBLISHED[name], HEAD)


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In float32; None for a name that is not known, or another size."""
    from diffusers import AutoencoderRAE

    name = Path(checkpoint).name
    if name not in PUBLISHED or resolution != RESOLUTION:
        return None
    with torch.device("meta"):
        network = DiTDHNetwork(published_plan(name))
        x, time = torch.zeros(1, CHANNELS, SIDE, SIDE), torch.zeros(1)
        told = torch.zeros(1, dtype=torch.int64)
        evaluation = counted_flops(lambda: network(x, time, told))
    decoding = decoding_flops(AutoencoderRAE, RAE_DINOV2, CHANNELS, SIDE)
    return Work(evaluation, decoding, precision="single")
