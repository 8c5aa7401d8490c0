"""The body of a U-Net on pixels, told one vector; families put ends and embeddings to it.

With n residual blocks in a level on the way down there are n + 1 on the way up, each of which takes
up what one step of the way down kept. Self-attention follows each residual block of some levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.networks.blocks import (
    GROUPS,
    Enlarged,
    ResidualBlock,
    SelfAttention,
    group_norm,
    halved,
    on_images,
    zeroed,
)


@dataclass(frozen=True)
class Level:
    """Feature maps of one side: their channels, residual blocks on the way down, attention, dropout
    of the blocks."""

    channels: int
    blocks: int
    attends: bool
    dropout: float


@dataclass(frozen=True)
class UNetPlan:
    """enter, leave: channels of what the body is given and says. embedding: width of what it is
    told. scale: of every residual sum. in_blocks: sides change inside of residual blocks, not by a
    convolution of their own. groups: of the norms."""

    levels: Sequence[Level]
    enter: int
    leave: int
    base: int
    embedding: int
    heads: int
    middle_dropout: float
    scale: float = 1.0
    in_blocks: bool = False
    groups: int = GROUPS

    def block(
        self, before: int, channels: int, dropout: float, *, resample: int = 0
    ) -> ResidualBlock:
        """A residual block as the plan has it."""
        return ResidualBlock(
            *(before, channels, self.embedding, dropout),
            resample=resample,
            scale=self.scale,
            groups=self.groups,
        )

    def attention(self, channels: int) -> SelfAttention:
        """Likewise."""
        return SelfAttention(channels, self.heads, scale=self.scale, groups=self.groups)


class Block(nn.Module):
    """A residual block, and self-attention where the level has it."""

    def __init__(self, before: int, level: Level, plan: UNetPlan) -> None:
        super().__init__()
        self.residual = plan.block(before, level.channels, level.dropout)
        self.attention = plan.attention(level.channels) if level.attends else None

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        out: Tensor = self.residual(x, h)
        return out if self.attention is None else on_images(self.attention, out)


class Resampling(nn.Module):
    """Half the side (-1) or twice it (1), in a residual block or by a convolution."""

    def __init__(self, direction: int, level: Level, plan: UNetPlan) -> None:
        super().__init__()
        width = level.channels
        self.layer: nn.Module
        if plan.in_blocks:
            self.layer = plan.block(width, width, level.dropout, resample=direction)
        else:
            self.layer = halved(width) if direction < 0 else Enlarged(width)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        in_block = isinstance(self.layer, ResidualBlock)
        out: Tensor = self.layer(x, h) if in_block else self.layer(x)
        return out


class UNetBody(nn.Module):
    """x float[N,enter,H,W], h float[N,embedding] => float[N,leave,H,W]."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.counts = [level.blocks for level in plan.levels]
        self.enter = nn.Conv2d(plan.enter, plan.base, 3, padding=1)
        self.down, self.halve = nn.ModuleList(), nn.ModuleList()
        kept = [plan.base]
        for number, level in enumerate(plan.levels, 1):
            for _ in range(level.blocks):
                self.down.append(Block(kept[-1], level, plan))
                kept.append(level.channels)
            if number < len(plan.levels):
                self.halve.append(Resampling(-1, level, plan))
                kept.append(level.channels)
        width = kept[-1]
        self.middle = nn.ModuleList(plan.block(width, width, plan.middle_dropout) for _ in range(2))
        self.middle_attention = plan.attention(width)
        self.up, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for number, level in reversed(list(enumerate(plan.levels))):
            for _ in range(level.blocks + 1):
                self.up.append(Block(width + kept.pop(), level, plan))
                width = level.channels
            if number:
                self.enlarge.append(Resampling(1, level, plan))
        self.norm = group_norm(width, plan.groups)
        self.leave = zeroed(nn.Conv2d(width, plan.leave, 3, padding=1))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        kept = self._down(self.enter(x), h)
        first, second = self.middle
        y = second(on_images(self.middle_attention, first(kept[-1], h)), h)
        blocks, enlarge = iter(self.up), iter(self.enlarge)
        for level, count in reversed(list(enumerate(self.counts))):
            for _ in range(count + 1):
                y = next(blocks)(torch.cat([y, kept.pop()], dim=1), h)
            if level:
                y = next(enlarge)(y, h)
        out: Tensor = self.leave(F.silu(self.norm(y)))
        return out

    def _down(self, y: Tensor, h: Tensor) -> list[Tensor]:
        """All that the way up takes up again."""
        kept, blocks, halve = [y], iter(self.down), iter(self.halve)
        for level, count in enumerate(self.counts, 1):
            for _ in range(count):
                kept.append(next(blocks)(kept[-1], h))
            if level < len(self.counts):
                kept.append(next(halve)(kept[-1], h))
        return kept
