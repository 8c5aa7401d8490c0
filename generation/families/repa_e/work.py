"""What REPA-E's SiT takes of arithmetic, before there are weights."""

from pathlib import Path

from generation.families.diffusion_transformer.recipe import SIZES
from generation.families.diffusion_transformer.work import network_flops
from generation.networks.flops import Work, decoding_flops
from generation.networks.transformer import TransformerPlan
from generation.pretrained.autoencoder_shapes import VA_VAE

RESOLUTION, SIDE, CHANNELS = 256, 16, 32
PUBLISHED = ("REPA-E-SiT-XL-1-256x256.pt", "REPA-E-SiT-XL-1-INVAE-256x256.pt")


def published_plan() -> TransformerPlan:
    """Of SiT-XL/1 on latents of 32 channels."""
    width, depth, heads = SIZES["XL"]
    return TransformerPlan(
        SIDE, CHANNELS, CHANNELS, 1001, patch=1, width=width, depth=depth, heads=heads
    )


def published_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision; None for a name that is not known, or another size."""
    from diffusers import AutoencoderKL

    if Path(checkpoint).name not in PUBLISHED or resolution != RESOLUTION:
        return None
    decoding = decoding_flops(AutoencoderKL, VA_VAE, CHANNELS, SIDE)
    return Work(network_flops(published_plan()), decoding)
