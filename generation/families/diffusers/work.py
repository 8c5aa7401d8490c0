"""What public text-to-image pipelines take of arithmetic: the shapes of their config.json."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generation.families.diffusers.kinds import FACTOR, FLUX2_BASE, SD_BASE, SDXL_BASE, SHAPES
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.networks.fp8.running import counted_in_fp8
from generation.pretrained.autoencoder_shapes import DEEP_COMPRESSION, STABLE_DIFFUSION
from generation.pretrained.diffusers_folder import HUB_NAME

DEEP_FACTOR = 32  # pixels that a side of a deeply compressed latent stands for

PIXART = {"norm_type": "ada_norm_single", "caption_channels": 4096}  # the rest by default
SANA_600M = {
    "num_attention_heads": 36,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "num_layers": 28,
}
SANA_1600M: dict[str, Any] = {}  # the defaults


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(1, *shape, device="meta")


def _evaluated(name: str, shape: dict[str, Any], *inputs: Tensor, **further: Any) -> int:
    """Of diffusers' network class `name`."""
    import diffusers

    with torch.device("meta"):
        network: Any = getattr(diffusers, name)(**shape)
        return counted_flops(lambda: network(*inputs, **further))


def _sd(resolution: int) -> Work:
    from diffusers import AutoencoderKL

    side = resolution // FACTOR
    evaluation = _evaluated(
        "UNet2DConditionModel",
        SHAPES[SD_BASE][1],
        _zeros(4, side, side),
        _zeros(),
        _zeros(77, 768),
    )
    return _in_half(evaluation, decoding_flops(AutoencoderKL, STABLE_DIFFUSION, 4, side))


def _sdxl(resolution: int) -> Work:
    from diffusers import AutoencoderKL

    side = resolution // FACTOR
    told = {"text_embeds": _zeros(1280), "time_ids": _zeros(6)}
    evaluation = _evaluated(
        "UNet2DConditionModel",
        SHAPES[SDXL_BASE][1],
        _zeros(4, side, side),
        _zeros(),
        _zeros(77, 2048),
        added_cond_kwargs=told,
    )
    return _in_half(evaluation, decoding_flops(AutoencoderKL, STABLE_DIFFUSION, 4, side))


def _pixart(resolution: int) -> Work:
    from diffusers import AutoencoderKL

    side = resolution // FACTOR
    large = side == 128  # which is told the size of the image, too
    told = {"resolution": _zeros(2), "aspect_ratio": _zeros(1)} if large else {}
    evaluation = _evaluated(
        "PixArtTransformer2DModel",
        PIXART | {"sample_size": side},
        _zeros(4, side, side),
        _zeros(120, 4096),
        timestep=_zeros(),
        added_cond_kwargs=told or {"resolution": None, "aspect_ratio": None},
    )
    return _in_half(evaluation, decoding_flops(AutoencoderKL, STABLE_DIFFUSION, 4, side))


def _sana(shape: dict[str, Any], resolution: int) -> Work:
    from diffusers import AutoencoderDC

    side = resolution // DEEP_FACTOR
    evaluation = _evaluated(
        "SanaTransformer2DModel", shape, _zeros(32, side, side), _zeros(300, 2304), _zeros()
    )
    return _in_half(evaluation, decoding_flops(AutoencoderDC, DEEP_COMPRESSION, 32, side))


def _flux2_klein(resolution: int) -> Work:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    side = resolution // FACTOR
    tokens, texts = (side // 2) ** 2, 512
    told = (_zeros(tokens, 128), _zeros(texts, 7680), _zeros())
    places = {"img_ids": _zeros(tokens, 4)[0], "txt_ids": _zeros(texts, 4)[0]}
    with torch.device("meta"):
        network: Any = Flux2Transformer2DModel(**SHAPES[FLUX2_BASE][1])
        with counted_in_fp8(network) as in_fp8:
            evaluation = counted_flops(lambda: network(*told, **places))
    work = _in_half(evaluation, decoding_flops(AutoencoderKLFlux2, {}, 32, side))
    return replace(work, for_fp8=in_fp8[0])


def _in_half(evaluation: int, decoding: int) -> Work:
    """A pipeline runs in one precision, its decoder, too."""
    return Work(evaluation, decoding, decoded_in="half")


PUBLISHED: dict[str, Callable[[int], Work]] = {
    "black-forest-labs/FLUX.2-klein-4B": _flux2_klein,
    FLUX2_BASE: _flux2_klein,
    "Efficient-Large-Model/Sana_600M_512px_diffusers": partial(_sana, SANA_600M),
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": partial(_sana, SANA_1600M),
    "PixArt-alpha/PixArt-XL-2-256x256": _pixart,
    "PixArt-alpha/PixArt-XL-2-512x512": _pixart,
    "PixArt-alpha/PixArt-XL-2-1024-MS": _pixart,
    "hbXNov/ucla-mint-finetune-sd-im1k": _sd,
    SDXL_BASE: _sdxl,
}


def pipeline_work(checkpoint: str, resolution: int) -> Work | None:
    """None for a pipeline that is not among PUBLISHED."""
    name = HUB_NAME.fullmatch(checkpoint)
    count = PUBLISHED.get(checkpoint if name is None else name["repo"])
    return None if count is None else count(resolution)
