"""What DiT's and SiT's networks take of arithmetic, before there are weights."""

from pathlib import Path

import torch

from generation.denoisers.family import Family
from generation.denoisers.work import evaluation_flops, planned_config
from generation.families.diffusion_transformer.recipe import SIZES, TransformerStage
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.autoencoder_shapes import STABLE_DIFFUSION

FACTOR = 8  # pixels a side of a latent
PUBLISHED = {  # XL/2, by file or by name on the Hub: the side of its images
    "DiT-XL-2-256x256.pt": 256,
    "DiT-XL-2-512x512.pt": 512,
    "SiT-XL-2-256x256.pt": 256,
    "facebook/DiT-XL-2-256": 256,
    "facebook/DiT-XL-2-512": 512,
}


def transformer_work(family: Family, checkpoint: str, resolution: int) -> Work | None:
    """A published network runs in half precision, one that was trained here in float32."""
    hub = checkpoint.partition("@")[0]  # without its revision
    side = PUBLISHED.get(hub, PUBLISHED.get(Path(checkpoint).name))
    if side is not None:
        return _published(side // FACTOR) if side == resolution else None
    config = planned_config(family, checkpoint)
    if config is None or config.stage.resolution != resolution:
        return None
    evaluation = evaluation_flops(family, config)
    assert isinstance(config.stage, TransformerStage)
    latents = config.stage.latents
    decoding = 0 if latents is None else decoding_of(latents.channels, latents.side)
    return Work(evaluation, decoding, precision="single")


def _published(side: int) -> Work:
    width, depth, heads = SIZES["XL"]
    plan = TransformerPlan(side, 4, 8, 1001, patch=2, width=width, depth=depth, heads=heads)
    return Work(network_flops(plan), decoding_of(plan.channels, side))


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
