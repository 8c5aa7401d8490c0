"""The shapes of published networks, to plan with where their files are out of reach.

A training reads the shape from the model itself; these are for dry runs alone, as the models'
config.json on the Hub have them. Counted, they come to 859.5, 2,567.5 and 3,875.5 M
parameters.
"""

from typing import Any

from generation.families.diffusers.kinds import FLUX2, SD, SDXL

ATTENDING, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def _unet(widths: tuple[int, ...], attends: tuple[bool, ...], **changes: Any) -> dict[str, Any]:
    down = [(ATTENDING if a else PLAIN).format("Down") for a in attends]
    up = [(ATTENDING if a else PLAIN).format("Up") for a in reversed(attends)]
    shared = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2}
    blocks = {"block_out_channels": widths, "down_block_types": down, "up_block_types": up}
    return shared | blocks | changes


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        SD,
        _unet(
            (320, 640, 1280, 1280),
            (True, True, True, False),
            sample_size=64,
            attention_head_dim=8,
            cross_attention_dim=768,
        ),
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": (
        SDXL,
        _unet(
            (320, 640, 1280),
            (False, True, True),
            sample_size=128,
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            transformer_layers_per_block=(1, 2, 10),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
    ),
    "black-forest-labs/FLUX.2-klein-base-4B": (
        FLUX2,
        {
            "in_channels": 128,
            "num_layers": 5,
            "num_single_layers": 20,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "axes_dims_rope": (32, 32, 32, 32),
            "guidance_embeds": False,
        },
    ),
}
FACTOR = 8  # pixels that a side of their latents stands for
