"""What OpenAI's networks take of arithmetic, by their published shapes."""

from typing import Any

import torch

from generation.families.adm.converter import planned_unet
from generation.families.adm.networks import Network
from generation.networks.flops import Work, counted_flops


def unet_work(network: Network, checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for another resolution than the published network's."""
    shape = network.published
    if shape.side != resolution:
        return None
    unet: Any = planned_unet(shape, network.heads, checkpoint)
    with torch.device("meta"):
        x = torch.zeros(1, shape.in_channels, resolution, resolution)
        numbers = torch.zeros(1, dtype=torch.int64)
        return Work(counted_flops(lambda: unet(x, numbers, class_labels=numbers)))
