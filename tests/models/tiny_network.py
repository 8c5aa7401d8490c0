"""A stage small enough to sample and train in a test: a real diffusers U-Net, untrained."""

import torch

from generation.diffusion.schedule import ScheduleConfig
from generation.families.pixel_unet.network import PixelUNet, StageConfig, build_unet
from generation.prompts.conditioning import Conditioning, embed_conditions
from generation.prompts.text_encoder import PromptEmbeddings

PROMPTS = ("bag", "coat", "")
SHAPE = {
    "block_out_channels": (16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}


def tiny_network(
    low_resolution: int | None = None,
    dropout: float = 0.0,
    prompts: tuple[str, ...] = PROMPTS,
    **stage: object,
) -> PixelUNet:
    """A base stage of 8 pixels, or a super-resolution stage from `low_resolution` to its double."""
    torch.manual_seed(0)
    count = len(prompts)
    tokens, pooled = torch.randn(count, 4, 8), torch.randn(count, 8)
    embeddings = PromptEmbeddings(prompts, tokens, torch.ones(count, 4), pooled)
    settings = {
        "resolution": 8 if low_resolution is None else 2 * low_resolution,
        "low_resolution": low_resolution,
        "text_encoder": "none",
        "prompts": prompts,
        "schedule": ScheduleConfig(num_steps=100),
    }
    config = StageConfig.model_validate(settings | stage)
    network = build_unet(config, embeddings, SHAPE | {"dropout": dropout})
    return network.eval().requires_grad_(False)


def tiny_conditioned(
    conditioning: Conditioning, prompts: tuple[str, ...], low_resolution: int | None = None
) -> PixelUNet:
    """The same stages, told a class or nothing."""
    embeddings, encoder = embed_conditions(conditioning, prompts)
    config = StageConfig(
        resolution=8 if low_resolution is None else 2 * low_resolution,
        channels=3,
        low_resolution=low_resolution,
        conditioning=conditioning,
        text_encoder=encoder,
        prompts=embeddings.prompts,
        schedule=ScheduleConfig(num_steps=100),
    )
    torch.manual_seed(0)
    return build_unet(config, embeddings, SHAPE).eval().requires_grad_(False)
