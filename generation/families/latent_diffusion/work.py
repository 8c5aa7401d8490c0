"""What LDM-4 takes of arithmetic: Rombach et al. 2022, table 13, and the published autoencoder."""

from typing import Any

import torch

from generation.denoisers.checkpoint_files import planned_config
from generation.denoisers.family import Family
from generation.denoisers.latents import latent_stage
from generation.denoisers.work import evaluation_flops
from generation.families.adm.converter import planned_unet
from generation.families.adm.shapes import Heads, Shape
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import VQ_4

UNET = Shape(
    in_channels=3,
    out_channels=3,
    widths=(192, 384, 576, 960),
    attends=(False, True, True, True),
    blocks=2,
    resblock_updown=False,
    scale_shift=False,
    classes=None,
    context=512,
    depth=1,
)
HEADS = Heads(count=1)
LATENTS = (3, 64)  # channels, side


def published_work() -> Work:
    """The U-Net runs in half precision, the decoder in float32."""
    channels, side = LATENTS
    unet: Any = planned_unet(UNET, HEADS, "LDM-4")
    with torch.device("meta"):
        x, told = torch.zeros(1, channels, side, side), torch.zeros(1, 1, UNET.context or 0)
        time = torch.zeros(1, dtype=torch.int64)
        evaluation = counted_flops(lambda: unet(x, time, told))
    # the nearest codes are sought on any device; the decoder is what counts
    return Work(evaluation, _decoding(*LATENTS))


def own_work(family: Family, checkpoint: str, resolution: int) -> Work | None:
    """Of a network that is trained here, in float32; None for a checkpoint that is not known."""
    config = planned_config(family, checkpoint)
    if config is None or config.stage.resolution != resolution:
        return None
    latents = latent_stage(config).latents
    decoding = 0 if latents is None else _decoding(latents.channels, latents.side)
    return Work(evaluation_flops(family, config), decoding, precision="single")


def _decoding(channels: int, side: int) -> int:
    """By an autoencoder of the published shape."""
    from diffusers import VQModel

    return decoding_flops(VQModel, VQ_4 | {"lookup_from_codebook": False}, channels, side)
