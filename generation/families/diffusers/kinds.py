"""The text-to-image pipelines of diffusers that are fine-tuned here by LoRA, and published ones.

Nothing here imports torch.
"""

from dataclasses import dataclass
from typing import Any

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# FLUX.2's blocks of two streams attend with projections for the text as well; those of one stream
# have all projections in one.
JOINT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_qkv_mlp_proj")


@dataclass(frozen=True)
class Kind:
    """component: the network within the pipeline; network: its class of diffusers. targets: the
    layers that get an adapter unless the recipe names others, by the ends of their names. flow: it
    says a velocity, else what its scheduler states."""

    component: str
    network: str
    targets: tuple[str, ...]
    flow: bool


UNET = Kind("unet", "UNet2DConditionModel", ATTENTION, flow=False)
FLUX2 = "Flux2KleinPipeline"
SD = "StableDiffusionPipeline"
SDXL = "StableDiffusionXLPipeline"
KINDS = {
    FLUX2: Kind("transformer", "Flux2Transformer2DModel", (*ATTENTION, *JOINT), flow=True),
    SD: UNET,
    SDXL: UNET,
}

SD_BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
FLUX2_BASE = "black-forest-labs/FLUX.2-klein-base-4B"
ATTENDING, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def _unet(widths: tuple[int, ...], attends: tuple[bool, ...], **changes: Any) -> dict[str, Any]:
    down = [(ATTENDING if a else PLAIN).format("Down") for a in attends]
    up = [(ATTENDING if a else PLAIN).format("Up") for a in reversed(attends)]
    shared = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2}
    blocks = {"block_out_channels": widths, "down_block_types": down, "up_block_types": up}
    return shared | blocks | changes


# As the models' config.json on the Hub have them, for dry runs where their files are out of reach.
# Counted, they come to 859.5, 2,567.5 and 3,875.5 M parameters.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    SD_BASE: (
        SD,
        _unet(
            (320, 640, 1280, 1280),
            (True, True, True, False),
            sample_size=64,
            attention_head_dim=8,
            cross_attention_dim=768,
        ),
    ),
    SDXL_BASE: (
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
    FLUX2_BASE: (
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
