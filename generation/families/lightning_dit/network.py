"""LightningDiT's network (Yao et al. 2025, arXiv 2501.01423, section 4): DiT with RMS norms,
SwiGLU and rotary positions beside the fixed ones. It says a velocity, at a time from 0, noise,
to 1, data. Its blocks are those of generation/networks/rotary_transformer.py."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generation.networks.rotary import grid_rotations
from generation.networks.rotary_transformer import RotaryBlock, RotaryEnd, gated_width
from generation.networks.transformer import TimeEmbedding, grid_positions, unpatched


@dataclass(frozen=True)
class LightningPlan:
    """grid: patches a side; channels: of what it sees and says; classes: rows of its embedding, the
    null class's included; normalised: whether queries and keys are."""

    grid: int
    channels: int
    classes: int
    patch: int
    width: int
    depth: int
    heads: int
    normalised: bool = False

    @property
    def side(self) -> int:
        """Of the latents."""
        return self.grid * self.patch


class LightningNetwork(nn.Module):
    """See above. Its positions are no part of its state."""

    def __init__(self, plan: LightningPlan) -> None:
        super().__init__()
        width, patch = plan.width, plan.patch
        self.plan = plan
        self.patches = nn.Conv2d(plan.channels, width, patch, stride=patch)
        self.time, self.classes = TimeEmbedding(width), nn.Embedding(plan.classes, width)
        self.blocks = nn.ModuleList(
            RotaryBlock(width, plan.heads, gated_width(width), normalised=plan.normalised)
            for _ in range(plan.depth)
        )
        self.end = RotaryEnd(width, patch * patch * plan.channels)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """x float[N,C,H,W]; time float[N]; condition int64[N]. Returns float[N,C,H,W]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.positions(x.device).to(tokens)
        c = (self.time(time).to(tokens) + self.classes(condition))[:, None]
        turns = self.turns(x.device)
        for block in self.blocks:
            tokens = block(tokens, c, turns)
        return unpatched(self.end(tokens, c), self.plan.patch)

    def positions(self, device: torch.device | str = "cpu") -> Tensor:
        """float32[T,width]."""
        return grid_positions(self.plan.grid, self.plan.width, device)

    def turns(self, device: torch.device | str = "cpu") -> Tensor:
        """complex64[T, head width / 2]."""
        return grid_rotations(self.plan.grid, self.plan.width // self.plan.heads, device)
