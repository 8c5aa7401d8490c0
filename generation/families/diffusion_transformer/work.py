"""What DiT's and SiT's networks take of arithmetic, before there are weights."""

from pathlib import Path

import torch

from generation.denoisers.checkpoint_files import planned_config
from generation.denoisers.family import Family
from generation.denoisers.latents import latent_stage
from generation.denoisers.work import evaluation_flops
from generation.families.diffusion_transformer.recipe import SIZES
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.autoencoder_shapes import STABLE_DIFFUSION

FACTOR = 8  # pixels a side of a latent
PUBLISHED = {  # XL/2, by file or by name on the Hub: side of its images, channels that it says
    "DiT-XL-2-256x256.pt": (256, 8),
    "DiT-XL-2-512x512.pt": (512, 8),
    "SiT-XL-2-256x256.pt": (256, 8),
    "REPA-SiT-XL-2-256x256.pt": (256, 4),
    "facebook/DiT-XL-2-256": (256, 8),
    "facebook/DiT-XL-2-512": (512, 8),
}


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    hub = checkpoint.partition("@")[0]  # without its revision
    found = PUBLISHED.get(hub, PUBLISHED.get(Path(checkpoint).name))
    if found is None or found[0] != resolution:
        return None
    plan = published_plan(*found)
    return Work(network_flops(plan), decoding_of(plan.channels, plan.side))


def published_plan(resolution: int, says: int) -> TransformerPlan:
    """Of XL/2 on latents of four channels."""
    width, depth, heads = SIZES["XL"]
    return TransformerPlan(
        resolution // FACTOR, 4, says, 1001, patch=2, width=width, depth=depth, heads=heads
    )


def own_work(family: Family, checkpoint: str, resolution: int) -> Work | None:
    """Of a network that is trained here, in float32; None for a checkpoint that is not known."""
    config = planned_config(family, checkpoint)
    if config is None or config.stage.resolution != resolution:
        return None
    evaluation = evaluation_flops(family, config)
    latents = latent_stage(config).latents
    decoding = 0 if latents is None else decoding_of(latents.channels, latents.side)
    return Work(evaluation, decoding, precision="single")


def network_flops(plan: TransformerPlan) -> int:
    """Of one call for one image."""
    with torch.device("meta"):
        network = Transformer(plan)
        x, time = torch.zeros(1, plan.channels, plan.side, plan.side), torch.zeros(1)
        told = torch.zeros(1, dtype=torch.int64)
        return counted_flops(lambda: network(x, time, told))


def decoding_of(channels: int, side: int) -> int:
    """By an autoencoder of Stable Diffusion's shape."""
    from diffusers import AutoencoderKL

    shape = STABLE_DIFFUSION | {"latent_channels": channels}
    return decoding_flops(AutoencoderKL, shape, channels, side)
