"""Simple Diffusion's U-ViT (Hoogeboom et al. 2023, section 3.5 and appendix B.2).

Convolutional levels as in the U-Net, their blocks joined by skips; at the lowest level a
transformer, whose blocks have residual connections alone. A block of it is self-attention, then an
MLP that noise level and class scale and shift:

    x = x + linear(attention(norm(x)))
    x = x + linear(dropout(gelu(linear(norm(x) * (1 + scale) + shift))))

The paper's pseudo-code, as we know it second-hand, differs in three places: noise level and class
scale and shift the MLP's wide layer, behind a swish; queries and keys are normed; a skip is normed
and added to normed features, where here it is joined to them as in the U-Net.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.families.simple_diffusion.recipe import UViTShape
from generation.families.simple_diffusion.telling import told_level
from generation.families.simple_diffusion.wavelet import from_bands, to_bands
from generation.networks.blocks import (
    Embedding,
    Enlarged,
    ResidualBlock,
    SelfAttention,
    group_norm,
    halved,
    zeroed,
)

EXPANSION = 4  # of the MLP


class TransformerBlock(nn.Module):
    """See above; on tokens float[N,T,C]."""

    def __init__(self, channels: int, shape: UViTShape) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, shape.heads, groups=shape.groups)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.film = nn.Linear(shape.embedding, 2 * channels)
        self.wide = nn.Linear(channels, EXPANSION * channels)
        self.dropout = nn.Dropout(shape.dropout)
        self.narrow = zeroed(nn.Linear(EXPANSION * channels, channels))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        x = self.attention(x)
        scale, shift = self.film(F.silu(h))[:, None].chunk(2, dim=2)
        y = self.wide(self.norm(x) * (1 + scale) + shift)
        out: Tensor = x + self.narrow(self.dropout(F.gelu(y)))
        return out


class UViT(Denoiser):
    """Predicts v; `wavelet` of the shape has it see and say the bands of a wavelet."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: UViTShape = config.network
        side = shape.sides(config.stage.resolution)[-1]
        *widths, tokens = shape.widths
        bands = config.channels * 4**shape.wavelet
        self.embedding = Embedding(shape.base_channels, shape.embedding, len(config.classes))
        self.enter = nn.Conv2d(bands, widths[0], 3, padding=1)
        self.down = _blocks([widths[0], *widths], shape.blocks, shape, joined=False)
        self.halve = nn.ModuleList(halved(width) for width in widths)
        self.widen = nn.Linear(widths[-1], tokens)
        self.place = nn.Parameter(0.02 * torch.randn(1, side * side, tokens))
        self.transformer = nn.ModuleList(
            TransformerBlock(tokens, shape) for _ in range(shape.transformer_blocks)
        )
        self.token_norm = nn.LayerNorm(tokens, eps=1e-6)
        self.narrow = nn.Linear(tokens, widths[-1])
        upwards = widths[::-1]
        self.enlarge = nn.ModuleList(Enlarged(width) for width in [widths[-1], *upwards[:-1]])
        self.up = _blocks([widths[-1], *upwards], shape.blocks[::-1], shape, joined=True)
        self.norm = group_norm(widths[0], shape.groups)
        self.leave = zeroed(nn.Conv2d(widths[0], bands, 3, padding=1))

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """v, float[N,C,H,W]; it is given no parent and carries nothing."""
        assert parent is None
        assert carried is None
        shape: UViTShape = self.config.network
        h = self.embedding(told_level(log_snr), condition)
        y, kept = self.enter(to_bands(x, shape.wavelet)), list[Tensor]()
        for blocks, halve in zip(self.down, self.halve, strict=True):
            for block in _of(blocks):
                y = block(y, h)
                kept.append(y)
            y = halve(y)
        y = self._attend(y, h)
        for blocks, enlarge in zip(self.up, self.enlarge, strict=True):
            y = enlarge(y)
            for block in _of(blocks):
                y = block(torch.cat([y, kept.pop()], dim=1), h)
        return from_bands(self.leave(F.silu(self.norm(y))), shape.wavelet), None

    def _attend(self, y: Tensor, h: Tensor) -> Tensor:
        """The transformer, on float[N,C,side,side]."""
        tokens = self.widen(y.flatten(2).transpose(1, 2)) + self.place
        for block in self.transformer:
            tokens = block(tokens, h)
        tokens = self.narrow(self.token_norm(tokens))
        images: Tensor = tokens.transpose(1, 2).unflatten(2, y.shape[2:])
        return images


def _of(level: nn.Module) -> nn.ModuleList:
    assert isinstance(level, nn.ModuleList)
    return level


def _blocks(
    widths: Sequence[int], counts: Sequence[int], shape: UViTShape, *, joined: bool
) -> nn.ModuleList:
    """Residual blocks of each level; widths: before the first level, then of each.

    joined: each block also takes up what one of the same width kept.
    """
    levels = nn.ModuleList()
    for before, width, count in zip(widths, widths[1:], counts, strict=False):
        blocks = nn.ModuleList()
        for i in range(count):
            taken = (before if i == 0 else width) + (width if joined else 0)
            block = ResidualBlock(taken, width, shape.embedding, 0.0, groups=shape.groups)
            blocks.append(block)
        levels.append(blocks)
    return levels
