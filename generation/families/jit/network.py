"""JiT's network (Li & He 2025, arXiv 2511.13720, section 4): large patches of pixels, which pass a
bottleneck on their way in. It says the image itself, x.

A block is that of generation/networks/rotary_transformer.py, with queries and keys normalised. Some
blocks in, tokens of the class join those of the patches, before them; they do not turn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generation.networks.rotary import grid_rotations
from generation.networks.rotary_transformer import RotaryBlock, RotaryEnd, gated_width
from generation.networks.transformer import TimeEmbedding, grid_positions, unpatched


@dataclass(frozen=True)
class JiTPlan:
    """grid: patches a side; classes: rows of its embedding, the null class's included; bottleneck:
    channels of a patch on its way in; tokens: of the class; joined: blocks before they join."""

    grid: int
    channels: int
    classes: int
    patch: int
    bottleneck: int
    width: int
    depth: int
    heads: int
    tokens: int
    joined: int

    @property
    def side(self) -> int:
        """Of the images."""
        return self.grid * self.patch


class JiTNetwork(nn.Module):
    """See above. The patches' positions are no part of its state, the class tokens' are."""

    def __init__(self, plan: JiTPlan) -> None:
        super().__init__()
        width, patch = plan.width, plan.patch
        self.plan = plan
        self.reduced = nn.Conv2d(plan.channels, plan.bottleneck, patch, stride=patch, bias=False)
        self.patches = nn.Conv2d(plan.bottleneck, width, 1)
        self.time, self.classes = TimeEmbedding(width), nn.Embedding(plan.classes, width)
        self.tokens = nn.Parameter(torch.zeros(1, plan.tokens, width))
        self.blocks = nn.ModuleList(
            RotaryBlock(width, plan.heads, gated_width(width), normalised=True)
            for _ in range(plan.depth)
        )
        self.end = RotaryEnd(width, patch * patch * plan.channels)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """x float[N,C,H,W]; time float[N], from 0, noise, to 1, data; condition int64[N].

        Returns float[N,C,H,W], the image.
        """
        told = self.classes(condition)[:, None]
        c = self.time(time).to(told)[:, None] + told
        tokens = self.patches(self.reduced(x)).flatten(2).transpose(1, 2)
        tokens = tokens + self.positions(x.device).to(tokens)
        turns = self.turns(x.device)
        for i, block in enumerate(self.blocks):
            if i == self.plan.joined:
                tokens = torch.cat([told + self.tokens, tokens], dim=1)
                turns = torch.cat([turns.new_ones(self.plan.tokens, turns.shape[1]), turns])
            tokens = block(tokens, c, turns)
        return unpatched(self.end(tokens[:, self.plan.tokens :], c), self.plan.patch)

    def positions(self, device: torch.device | str = "cpu") -> Tensor:
        """float32[T,width], of the patches."""
        return grid_positions(self.plan.grid, self.plan.width, device)

    def turns(self, device: torch.device | str = "cpu") -> Tensor:
        """complex64[T, head width / 2], of the patches."""
        return grid_rotations(self.plan.grid, self.plan.width // self.plan.heads, device)
