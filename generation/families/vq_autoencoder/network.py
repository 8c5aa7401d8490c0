"""The autoencoder, diffusers' VQModel, and its discriminator of patches."""

import math
from typing import Any

from diffusers import VQModel
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.vq_autoencoder.recipe import AutoencoderRecipe

MOST_WIDE = 8  # times the first layer's channels
SLOPE = 0.2


def new_autoencoder(recipe: AutoencoderRecipe, channels: int) -> Any:
    """Untrained, for images of so many channels; scaling_factor is not known yet, and 1.

    Its codebook's loss is that of van den Oord et al. 2017 (`quantize.legacy` False): the
    commitment's weight is on the latents. The authors' code has it on the codes.
    """
    shape, levels = recipe.network, len(recipe.network.multipliers)
    network: Any = VQModel(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(shape.base_channels * m for m in shape.multipliers),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=shape.blocks,
        latent_channels=shape.latent_channels,
        sample_size=recipe.stage.resolution,
        num_vq_embeddings=shape.codes,
        vq_embed_dim=shape.latent_channels,
        mid_block_add_attention=shape.attention,
        norm_num_groups=shape.groups,
        scaling_factor=1.0,
    )
    network.quantize.legacy = False
    network.quantize.beta = recipe.training.commitment
    return network


class PatchDiscriminator(nn.Module):
    """Isola et al. 2017: convolutions of 4 x 4 pixels, `layers` of them halve the side; a number a
    patch.

    Its norms are of groups, where the authors' are of batches, so that what is learned does not
    depend on how a batch is shared out over processes.
    """

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        before = width
        for number in range(1, layers + 1):
            after = width * min(2**number, MOST_WIDE)
            stride = 2 if number < layers else 1
            self.convolutions.append(nn.Conv2d(before, after, 4, stride, padding=1, bias=False))
            self.norms.append(nn.GroupNorm(math.gcd(32, after), after))
            before = after
        self.last = nn.Conv2d(before, 1, 4, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """float[N,C,H,W] => float[N,1,h,w], above zero for what looks real."""
        y = F.leaky_relu(self.first(images), SLOPE)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = F.leaky_relu(norm(convolution(y)), SLOPE)
        found: Tensor = self.last(y)
        return found
