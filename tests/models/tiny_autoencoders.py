"""Tiny untrained autoencoders of latent models, as diffusers saves them."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, VQModel

from tests.models.tiny_models import randomize


def save_autoencoder(
    folder: Path, channels: int = 3, latent: int = 4, blocks: int = 2, seed: int = 0
) -> Path:
    """A Gaussian posterior of `latent` channels, a latent of 2^(blocks - 1) pixels a side."""
    torch.manual_seed(seed)
    network = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    randomize(network, 0.15)
    network.save_pretrained(folder)
    return folder


def save_quantiser(folder: Path, latent: int = 3, blocks: int = 2) -> Path:
    """Latents of a codebook, 2^(blocks - 1) pixels a side."""
    torch.manual_seed(0)
    network = VQModel(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent,
        num_vq_embeddings=16,
        norm_num_groups=4,
        scaling_factor=1.0,
    )
    randomize(network, 0.15)
    network.save_pretrained(folder)
    return folder
