"""DiT^DH (Zheng et al. 2025, arXiv 2510.11690, section 5): a deep transformer of usual width, and
a wide shallow head that says the velocity.

The deep part reads the noisy latents and is told c, silu of the embeddings of time and class. What
its tokens say, with the time once more, is what the head's tokens are each told. Both see the same
latents; the head alone has no fixed positions. Blocks: generation/networks/rotary_transformer.py.
Time counts from 0, data, to 1, noise.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.networks.rotary import grid_rotations
from generation.networks.rotary_transformer import RotaryBlock, RotaryEnd, gated_width
from generation.networks.transformer import grid_positions, unpatched


@dataclass(frozen=True)
class PartPlan:
    """Of the deep part, or of the head."""

    width: int
    depth: int
    heads: int

    def blocks(self) -> list[RotaryBlock]:
        """Untrained."""
        return [
            RotaryBlock(self.width, self.heads, gated_width(self.width), normalised=False)
            for _ in range(self.depth)
        ]


@dataclass(frozen=True)
class DiTDHPlan:
    """side, channels: of the latents, a token each; classes: rows of its embedding, the null
    class's included; waves: of the time's embedding."""

    side: int
    channels: int
    classes: int
    deep: PartPlan
    head: PartPlan
    waves: int = 256


class DiTDHNetwork(nn.Module):
    """See above. The fixed positions are no part of its state."""

    def __init__(self, plan: DiTDHPlan) -> None:
        super().__init__()
        deep, head = plan.deep, plan.head
        self.plan = plan
        self.deep_patches = nn.Conv2d(plan.channels, deep.width, 1)
        self.patches = nn.Conv2d(plan.channels, head.width, 1)
        self.time = GaussianEmbedding(deep.width, plan.waves)
        self.classes = nn.Embedding(plan.classes, deep.width)
        self.blocks = nn.ModuleList(deep.blocks() + head.blocks())
        self.bridge = nn.Linear(deep.width, head.width)
        self.end = RotaryEnd(head.width, plan.channels)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """x float[N,C,H,W]; time float[N]; condition int64[N]. Returns float[N,C,H,W]."""
        depth = self.plan.deep.depth
        t = self.time(time).to(x)[:, None]
        c = F.silu(t + self.classes(condition)[:, None])
        read = self.deep_patches(x).flatten(2).transpose(1, 2)
        read = read + self.positions(x.device).to(read)
        turns = self.turns(self.plan.deep, x.device)
        for block in self.blocks[:depth]:
            read = block(read, c, turns)
        told = self.bridge(F.silu(t + read))
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        turns = self.turns(self.plan.head, x.device)
        for block in self.blocks[depth:]:
            tokens = block(tokens, told, turns)
        return unpatched(self.end(tokens, told), 1)

    def positions(self, device: torch.device | str = "cpu") -> Tensor:
        """float32[T,width], of the deep part."""
        return grid_positions(self.plan.side, self.plan.deep.width, device)

    def turns(self, part: PartPlan, device: torch.device | str = "cpu") -> Tensor:
        """complex64[T, head width / 2], of that part."""
        return grid_rotations(self.plan.side, part.width // part.heads, device)


class GaussianEmbedding(nn.Module):
    """Sines, then cosines, of the time at frequencies once drawn from a Gaussian; two layers."""

    def __init__(self, width: int, waves: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.zeros(waves), requires_grad=False)
        self.first, self.second = nn.Linear(2 * waves, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """float[N] => float[N,width]."""
        angles = time.to(self.frequencies)[:, None] * self.frequencies * 2 * pi
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        out: Tensor = self.second(F.silu(self.first(waves)))
        return out
