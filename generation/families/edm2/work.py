"""What EDM2's published networks take of arithmetic, by their files' names."""

import re
from pathlib import Path

import torch

from generation.families.edm2.network import EDM2
from generation.families.edm2.plan import LATENT_CHANNELS, SIZES, EDM2Plan, published_plan
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import STABLE_DIFFUSION

NAME = re.compile(
    rf"edm2-img(?P<resolution>64|512)-(?P<size>{'|'.join(SIZES)})(?P<no_classes>-uncond)?-\d+-[\d.]+"
)


def named_plan(checkpoint: str) -> EDM2Plan | None:
    """Of a file of a published network, such as edm2-img512-s-2147483-0.130.safetensors."""
    found = NAME.fullmatch(Path(checkpoint).stem)
    if found is None:
        return None
    classes = 0 if found["no_classes"] else 1000
    return published_plan(int(found["resolution"]), found["size"], classes)


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    plan = named_plan(checkpoint)
    if plan is None or plan.resolution != resolution:
        return None
    evaluation = network_flops(plan)
    if plan.channels != LATENT_CHANNELS:
        return Work(evaluation)
    from diffusers import AutoencoderKL

    shape = (plan.channels, plan.side)
    return Work(evaluation, decoding_flops(AutoencoderKL, STABLE_DIFFUSION, *shape))


def network_flops(plan: EDM2Plan) -> int:
    """Of one call for one image."""
    with torch.device("meta"):
        network = EDM2(plan)
        x = torch.zeros(1, plan.channels, plan.side, plan.side)
        labels = torch.zeros(1, dtype=torch.int64) if plan.classes else None
        return counted_flops(lambda: network(x, torch.ones(1), labels))
