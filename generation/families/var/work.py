"""What VAR's published networks take of arithmetic, by their files' names.

One evaluation is all scales of an image, each code's keys and values made once.
"""

import re
from pathlib import Path

import torch

from generation.families.var.decoder import MultiScaleDecoder
from generation.families.var.network import VAR, Kept
from generation.families.var.plan import (
    DEPTHS,
    PUBLISHED_DECODER,
    DecoderPlan,
    VARPlan,
    published_plan,
)
from generation.networks.flops import Work, counted_flops

NAME = re.compile(r"var_d(?P<depth>\d+)\.(pth|safetensors)")


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    found = NAME.fullmatch(Path(checkpoint).name)
    if found is None or int(found["depth"]) not in DEPTHS.get(resolution, ()):
        return None
    plan = published_plan(int(found["depth"]), resolution)
    return Work(transformer_flops(plan), decoder_flops(PUBLISHED_DECODER, plan.scales))


def transformer_flops(plan: VARPlan) -> int:
    """Of all scales of an image, told its class."""
    with torch.device("meta"):
        network = VAR(plan)
        kept: list[Kept | None] = [None] * plan.depth
        condition = torch.zeros(1, dtype=torch.int64)

        def run() -> None:
            for scale, side in enumerate(plan.scales):
                seen = torch.zeros(1, plan.code_width, side, side) if scale else None
                network(scale, seen, condition, kept)

        return counted_flops(run)


def decoder_flops(plan: DecoderPlan, scales: tuple[int, ...]) -> int:
    """Of adding an image's maps of codes, and of decoding their sum."""
    with torch.device("meta"):
        decoder = MultiScaleDecoder(plan)
        image = torch.zeros(1, plan.code_width, scales[-1], scales[-1])

        def run() -> None:
            for side in scales:
                decoder.added(image, torch.zeros(1, side, side, dtype=torch.int64), 0.0)
            decoder(image)

        return counted_flops(run, decoding=True)
