"""Sampling JiT: it says the image x, from which the velocity follows.

    v = (x - z) / max(1 - t, 0.05),    z = t x + (1 - t) s eps

The noise's deviation s is 1 at 256 px, 2 at 512 px, so that an image of any size is as noisy.
"""

from pathlib import Path

from torch import Tensor

from generation.families.jit.converter import convert
from generation.networks.placement import Placement
from generation.pretrained.published_flow import FlowGenerator, PublishedFlow
from generation.pretrained.source_files import read_tensors

AVERAGE = "model_ema1"  # of a training's file, the average that its authors sample
LEAST = 0.05  # share of noise that a velocity is divided by
UNIT = 256  # px, at which noise has a deviation of 1


def jit(file: Path, placement: Placement) -> FlowGenerator:
    """The checkpoint in `file`."""
    network = convert(read_tensors(file, AVERAGE), str(file))
    plan = network.plan
    flow = PublishedFlow(
        network=placement.place(network),
        shape=(plan.channels, plan.side, plan.side),
        classes=plan.classes - 1,
        decoded=lambda x: x,
        velocity=towards,
        noise=plan.side / UNIT,
    )
    return FlowGenerator(file, flow, placement)


def towards(image: Tensor, x: Tensor, time: float) -> Tensor:
    """The velocity at x that leads to `image`."""
    return (image - x) / max(1 - time, LEAST)
