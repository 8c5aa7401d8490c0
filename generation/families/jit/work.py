"""What JiT's published networks take of arithmetic: Li & He 2025, tables 7 and 8."""

from pathlib import Path

import torch

from generation.families.jit.converter import JOINED
from generation.families.jit.network import JiTNetwork, JiTPlan
from generation.networks.flops import Work, counted_flops

GRID = 16
SIZES = {"B": (768, 12, 12, 128), "L": (1024, 24, 16, 128), "H": (1280, 32, 16, 256)}
PATCHES = (16, 32)  # of images of 256 and 512 px
PUBLISHED = {f"JiT-{size}-{patch}.pth": (size, patch) for size in SIZES for patch in PATCHES}


def published_plan(name: str) -> JiTPlan:
    """Of the file of that name; KeyError for another."""
    size, patch = PUBLISHED[name]
    width, depth, heads, bottleneck = SIZES[size]
    return JiTPlan(
        grid=GRID,
        channels=3,
        classes=1001,
        patch=patch,
        bottleneck=bottleneck,
        width=width,
        depth=depth,
        heads=heads,
        tokens=32,
        joined=JOINED[depth],
    )


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    name = Path(checkpoint).name
    if name not in PUBLISHED or published_plan(name).side != resolution:
        return None
    with torch.device("meta"):
        network = JiTNetwork(published_plan(name))
        x, time = torch.zeros(1, 3, resolution, resolution), torch.zeros(1)
        told = torch.zeros(1, dtype=torch.int64)
        return Work(counted_flops(lambda: network(x, time, told)))
