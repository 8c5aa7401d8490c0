"""The shapes of published autoencoders, to plan with where their files are out of reach: what of
their config.json on the Hub differs from the defaults of diffusers' class."""

from typing import Any


def _kl(*widths: int, latents: int = 4) -> dict[str, Any]:
    """An AutoencoderKL of Rombach et al. 2022, which halves the side at each width but the last."""
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": 2,
        "latent_channels": latents,
    }


STABLE_DIFFUSION = _kl(128, 256, 512, 512)  # 83.7 M parameters; SDXL's, DiT's and SiT's, too
UPSCALER = _kl(128, 256, 512)  # of the x4 upscaler: a latent stands for 4 x 4 pixels
VA_VAE = _kl(128, 128, 256, 256, 512, latents=32) | {  # LightningDiT's, and REPA-E's from it
    "down_block_types": (*("DownEncoderBlock2D",) * 4, "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 4),
}
KL_16 = _kl(128, 128, 256, 256, 512, latents=16) | {  # MAR's: attention where it encodes alone
    "down_block_types": (*("DownEncoderBlock2D",) * 4, "AttnDownEncoderBlock2D"),
}
VQ_4 = _kl(128, 256, 512, latents=3) | {"num_vq_embeddings": 8192, "vq_embed_dim": 3}  # of LDM-4
DEEP_COMPRESSION = {  # Sana's: a latent stands for 32 x 32 pixels
    "encoder_block_types": (*("ResBlock",) * 3, *("EfficientViTBlock",) * 3),
    "decoder_block_types": (*("ResBlock",) * 3, *("EfficientViTBlock",) * 3),
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
}
RAE_DINOV2 = {  # DINOv2-B with registers at 224 px, and a decoder of ViT-XL's size to 256 px
    "encoder_type": "dinov2",
    "encoder_hidden_size": 768,
    "encoder_num_hidden_layers": 12,
    "encoder_patch_size": 14,
    "encoder_input_size": 224,
    "decoder_hidden_size": 1152,
    "decoder_num_hidden_layers": 28,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 4096,
    "patch_size": 16,
}
