"""The shapes of DeepFloyd's own networks, to plan with where their files are out of reach.

A training reads the shape from the model itself; these are for dry runs alone. What differs between
the five is widths and depths, as their configs on the Hub have them; the rest is what diffusers'
scripts/convert_if.py writes for all of them. Counted, they come to 0.37, 0.94 and 4.30 B parameters
(DeepFloyd's README: 0.4, 0.9, 4.3) and 0.48 and 1.24 B (0.45, 1.2). IF-II-M's config is gated and
was not seen: its shape is IF-II-L's at three fifths of the width, the nearest to its 0.45 B.
"""

from typing import Any

TEXT_WIDTH = 4096  # of T5-XXL
SHARED = {
    "out_channels": 6,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "encoder_hid_dim": TEXT_WIDTH,
    "attention_head_dim": 64,
    "cross_attention_norm": "group_norm",
    "addition_embed_type": "text",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
SCALE = 1 / 0.7071  # of residuals in the second stage (Saharia et al. 2021)


def _first(*widths: int) -> dict[str, Any]:
    attending = len(widths) - 1
    return SHARED | {
        "sample_size": 64,
        "in_channels": 3,
        "block_out_channels": widths,
        "layers_per_block": 3,
        "down_block_types": (
            "ResnetDownsampleBlock2D",
            *("SimpleCrossAttnDownBlock2D",) * attending,
        ),
        "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * attending, "ResnetUpsampleBlock2D"),
        "cross_attention_dim": widths[-1],
    }


def _second(widths: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, Any]:
    plain = len(widths) - 2
    return SHARED | {
        "sample_size": 256,
        "in_channels": 6,
        "block_out_channels": widths,
        "layers_per_block": depths,
        "down_block_types": (
            *("ResnetDownsampleBlock2D",) * plain,
            *("SimpleCrossAttnDownBlock2D",) * 2,
        ),
        "up_block_types": (
            *("SimpleCrossAttnUpBlock2D",) * 2,
            *("ResnetUpsampleBlock2D",) * plain,
        ),
        "cross_attention_dim": widths[-1],
        "class_embed_type": "timestep",
        "time_embedding_dim": widths[-1],
        "time_embedding_act_fn": "gelu",
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": SCALE,
        "mid_block_scale_factor": SCALE,
    }


SHAPES = {
    "DeepFloyd/IF-I-M-v1.0": _first(192, 384, 576, 768),
    "DeepFloyd/IF-I-L-v1.0": _first(320, 640, 960, 1280),
    "DeepFloyd/IF-I-XL-v1.0": _first(704, 1408, 2112, 2816),
    "DeepFloyd/IF-II-M-v1.0": _second((96, 192, 384, 576, 768), (2, 2, 3, 5, 5)),
    "DeepFloyd/IF-II-L-v1.0": _second((160, 320, 640, 960, 1280), (2, 2, 3, 5, 5)),
}
