"""What DeepFloyd's stages and the x4 upscaler take of arithmetic, by their published shapes."""

from typing import Any

import torch

from generation.families.deepfloyd_if.pipeline import IF_TOKENS
from generation.families.deepfloyd_if.published import SHAPES, TEXT_WIDTH
from generation.networks.flops import Work, counted_flops, decoding_flops
from generation.pretrained.autoencoder_shapes import UPSCALER
from generation.pretrained.diffusers_folder import HUB_NAME

X4 = "stabilityai/stable-diffusion-x4-upscaler"
X4_FACTOR = 4  # pixels a side of a latent
X4_TOKENS, X4_CHANNELS = 77, 4
X4_SHAPE = {
    "sample_size": 128,
    "in_channels": 7,  # the latents and the parent
    "out_channels": X4_CHANNELS,
    "block_out_channels": (256, 512, 512, 1024),
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
    "cross_attention_dim": 1024,
    "attention_head_dim": 8,
    "only_cross_attention": (True, True, True, False),
    "use_linear_projection": True,
    "num_class_embeds": 1000,
}


def stage_work(checkpoint: str, resolution: int) -> Work | None:
    """In half precision, the upscaler's decoder in float32; None for other models or sizes."""
    name = HUB_NAME.fullmatch(checkpoint)
    repo = checkpoint if name is None else name["repo"]
    if repo == X4:
        return _upscaler_work(resolution)
    shape = SHAPES.get(repo)
    if shape is None or shape["sample_size"] != resolution:
        return None
    return Work(_evaluation(shape, resolution, IF_TOKENS, TEXT_WIDTH))


def _upscaler_work(resolution: int) -> Work:
    from diffusers import AutoencoderKL

    side = resolution // X4_FACTOR
    evaluation = _evaluation(X4_SHAPE, side, X4_TOKENS, X4_SHAPE["cross_attention_dim"])
    return Work(evaluation, decoding_flops(AutoencoderKL, UPSCALER, X4_CHANNELS, side))


def _evaluation(shape: dict[str, Any], side: int, tokens: int, width: Any) -> int:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(shape)
        x, text = torch.zeros(1, shape["in_channels"], side, side), torch.zeros(1, tokens, width)
        number = torch.zeros(1, dtype=torch.int64)
        told = {"class_labels": number} if shape["in_channels"] > 3 else {}
        return counted_flops(lambda: unet(x, number, text, **told))
