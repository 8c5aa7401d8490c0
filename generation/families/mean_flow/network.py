"""Improved MeanFlow's network (Geng et al. 2025, arXiv 2512.02012), which says a mean velocity.

What it is told stands as tokens before the patches: of the class, of guidance w as 1 - 1 / w, of
the interval in which guidance acts, of the step's length h. Each kind of them is learned, and the
embedding of what is told is added. All tokens have rotary positions, in one row. A block:

    x = x + gate * attention(norm(x));    x = x + gate * down(silu(a(norm(x))) * b(norm(x)))

with RMS norms, queries and keys normalised for each head, and a learned gate for each channel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.networks.rotary import rotations, turned
from generation.networks.transformer import TimeEmbedding, unpatched

EPS = 1e-6


@dataclass(frozen=True)
class MeanFlowPlan:
    """side, channels: of what it sees and says. classes: rows of its embedding, the null class's
    included. hidden: of the MLPs. tokens: of class, guidance, each end of the interval, and time.
    """

    side: int
    channels: int
    classes: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    tokens: tuple[int, int, int, int, int] = (8, 4, 2, 2, 4)


class MeanFlowNetwork(nn.Module):
    """See above. Without the heads for the velocity itself, by which training alone learns."""

    def __init__(self, plan: MeanFlowPlan) -> None:
        super().__init__()
        width = plan.width
        self.plan = plan
        self.patches = nn.Conv2d(plan.channels, width, plan.patch, stride=plan.patch)
        self.classes = nn.Embedding(plan.classes, width)
        self.guidance, self.time = TimeEmbedding(width), TimeEmbedding(width)
        self.start, self.end = TimeEmbedding(width), TimeEmbedding(width)
        self.tokens = nn.ParameterList(nn.Parameter(torch.zeros(n, width)) for n in plan.tokens)
        self.blocks = nn.ModuleList(
            Block(width, plan.heads, plan.hidden) for _ in range(plan.depth)
        )
        self.norm = nn.RMSNorm(width, eps=EPS)
        self.out = nn.Linear(width, plan.patch**2 * plan.channels)

    def forward(
        self,
        x: Tensor,
        length: Tensor,
        condition: Tensor,
        guidance: Tensor,
        interval: tuple[Tensor, Tensor],
    ) -> Tensor:
        """x float[N,C,H,W]; length float[N], of the step, in shares of the path; condition
        int64[N]; guidance float[N]; interval: two of float[N], shares of noise.

        Returns float[N,C,H,W], the mean of (noise - data) over the step.
        """
        low, high = interval
        told = (
            self.classes(condition),
            self.guidance(1 - 1 / guidance),
            self.start(low),
            self.end(high),
            self.time(length),
        )
        before = [own + one[:, None] for own, one in zip(self.tokens, told, strict=True)]
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([*before, patches], dim=1)
        turns = rotations(tokens.shape[1], self.plan.width // self.plan.heads, x.device)
        for block in self.blocks:
            tokens = block(tokens, turns)
        said = self.out(self.norm(tokens[:, sum(self.plan.tokens) :]))
        return unpatched(said, self.plan.patch)


class Block(nn.Module):
    """Attention and MLP over tokens, float[N,T,D]."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.RMSNorm(width, eps=EPS), nn.RMSNorm(width, eps=EPS)
        self.query_norm = nn.RMSNorm(width // heads, eps=EPS)
        self.key_norm = nn.RMSNorm(width // heads, eps=EPS)
        self.query, self.key, self.value, self.projection = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gated = nn.Linear(width, hidden, bias=False)
        self.linear = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.gate, self.mlp_gate = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """turns complex64[T, head width / 2]."""
        x = x + self.gate * self._attended(self.norm(x), turns)
        seen = self.mlp_norm(x)
        out: Tensor = x + self.mlp_gate * self.down(F.silu(self.gated(seen)) * self.linear(seen))
        return out

    def _attended(self, x: Tensor, turns: Tensor) -> Tensor:
        def split(layer: nn.Linear) -> Tensor:  # N, heads, T, width
            found: Tensor = layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            return found

        query = turned(self.query_norm(split(self.query)), turns)
        key = turned(self.key_norm(split(self.key)), turns)
        found = F.scaled_dot_product_attention(query, key, split(self.value))
        out: Tensor = self.projection(found.transpose(1, 2).flatten(2))
        return out
