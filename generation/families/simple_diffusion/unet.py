"""Simple Diffusion's U-Net (Hoogeboom et al. 2023, section 3.3 and appendix B.1).

Most blocks stand at the level of 16 px. With n residual blocks in a level on the way down there are
n + 1 on the way up, as its table 4 counts them. Self-attention follows each residual block of the
levels named; dropout stands in low levels alone (section 3.4).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.families.simple_diffusion.blocks import (
    Embedding,
    Enlarged,
    ResidualBlock,
    SelfAttention,
    group_norm,
    halved,
    on_images,
    zeroed,
)
from generation.families.simple_diffusion.recipe import UNetShape
from generation.families.simple_diffusion.wavelet import from_bands, to_bands


class Block(nn.Module):
    """A residual block, and self-attention where the level has it."""

    def __init__(self, before: int, channels: int, side: int, shape: UNetShape) -> None:
        super().__init__()
        dropout = shape.dropout if side <= shape.dropout_side else 0.0
        self.residual = ResidualBlock(before, channels, shape.embedding, dropout)
        attends = side in shape.attention
        self.attention = SelfAttention(channels, shape.heads) if attends else None

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        out: Tensor = self.residual(x, h)
        return out if self.attention is None else on_images(self.attention, out)


class UNet(Denoiser):
    """Predicts v; `wavelet` of the shape has it see and say the bands of a wavelet."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: UNetShape = config.network
        sides, widths = shape.sides(config.stage.resolution), shape.widths
        bands = config.channels * 4**shape.wavelet
        self.embedding = Embedding(shape.base_channels, shape.embedding, len(config.classes))
        self.enter = nn.Conv2d(bands, shape.base_channels, 3, padding=1)
        self.down, self.halve = nn.ModuleList(), nn.ModuleList()
        kept, width = [shape.base_channels], shape.base_channels
        for level, (side, channels) in enumerate(zip(sides, widths, strict=True)):
            for _ in range(shape.blocks[level]):
                self.down.append(Block(width, channels, side, shape))
                width = channels
                kept.append(width)
            if level < len(widths) - 1:
                self.halve.append(halved(width))
                kept.append(width)
        self.middle = nn.ModuleList(
            ResidualBlock(width, width, shape.embedding, shape.dropout) for _ in range(2)
        )
        self.middle_attention = SelfAttention(width, shape.heads)
        self.up, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(shape.blocks[level] + 1):
                before = width + kept.pop()
                self.up.append(Block(before, widths[level], sides[level], shape))
                width = widths[level]
            if level:
                self.enlarge.append(Enlarged(width))
        self.norm = group_norm(width)
        self.leave = zeroed(nn.Conv2d(width, bands, 3, padding=1))

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
        shape: UNetShape = self.config.network
        h = self.embedding(log_snr, condition)
        kept = self._down(self.enter(to_bands(x, shape.wavelet)), h, shape)
        first, second = self.middle
        y = second(on_images(self.middle_attention, first(kept[-1], h)), h)
        y = self.leave(F.silu(self.norm(self._up(y, kept, h, shape))))
        return from_bands(y, shape.wavelet), None

    def _down(self, y: Tensor, h: Tensor, shape: UNetShape) -> list[Tensor]:
        """All that the way up takes up again."""
        kept, blocks, halve = [y], iter(self.down), iter(self.halve)
        for level, count in enumerate(shape.blocks):
            for _ in range(count):
                kept.append(next(blocks)(kept[-1], h))
            if level < len(shape.blocks) - 1:
                kept.append(next(halve)(kept[-1]))
        return kept

    def _up(self, y: Tensor, kept: list[Tensor], h: Tensor, shape: UNetShape) -> Tensor:
        blocks, enlarge = iter(self.up), iter(self.enlarge)
        for level, count in reversed(list(enumerate(shape.blocks))):
            for _ in range(count + 1):
                y = next(blocks)(torch.cat([y, kept.pop()], dim=1), h)
            if level:
                y = next(enlarge)(y)
        return y
