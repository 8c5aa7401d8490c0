"""What a family's networks take of arithmetic, before there are weights."""

import torch
from torch import Tensor

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig
from generation.networks.flops import counted_flops


def evaluation_flops(family: Family, config: DenoiserConfig) -> int:
    """Of one call for one image."""
    stage = config.stage
    with torch.device("meta"):
        network = family.network(config)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(1, *shape, dtype=dtype)

        low = stage.low_resolution
        parent = None if low is None else zeros(config.channels, low, low)
        told = zeros(dtype=torch.int64)
        return counted_flops(lambda: network(zeros(*network.seen), zeros(), told, parent))
