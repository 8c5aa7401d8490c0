"""VAR's transformer (Tian et al. 2024, section 3): all codes of a scale at once, from those before.

A scale's tokens see all tokens of earlier scales and each other. What a sampler keeps of earlier
scales is their keys and values. The stream of tokens stays in float32; products run in the weights'
dtype, as the authors' autocast has it.
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generation.families.var.plan import VARPlan

EPSILON = 1e-6
LARGEST_SCALE = log(100)  # of attention's products, as a logarithm

Kept = tuple[Tensor, Tensor]  # keys and values of earlier scales, float[N,heads,L,width of a head]


def layer_norm(x: Tensor) -> Tensor:
    """Without weights of its own."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON)


class Block(nn.Module):
    """Attention and MLP, modulated by the class."""

    scales: Tensor

    def __init__(self, plan: VARPlan) -> None:
        super().__init__()
        width = plan.width
        self.heads = plan.heads
        self.qkv = nn.Linear(width, 3 * width)
        self.scales = nn.Parameter(torch.empty(plan.heads))
        self.projection = nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, plan.hidden), nn.Linear(plan.hidden, width)
        self.modulation = None if plan.shared else nn.Linear(width, 6 * width)
        self.own = nn.Parameter(torch.empty(6, width)) if plan.shared else None

    def forward(self, x: Tensor, told: Tensor, kept: Kept | None) -> tuple[Tensor, Kept]:
        """x float32[N,l,C]; told [N,C], or [N,6,C] where all blocks share a modulation."""
        gate, mlp_gate, scale, mlp_scale, shift, mlp_shift = self._modulated(told).unbind(1)
        attended, kept = self._attend(layer_norm(x) * (scale + 1)[:, None] + shift[:, None], kept)
        x = x + attended * gate[:, None]
        seen = layer_norm(x) * (mlp_scale + 1)[:, None] + mlp_shift[:, None]
        hidden = F.gelu(self.first(seen.to(self.first.weight.dtype)), approximate="tanh")
        return x + self.second(hidden).float() * mlp_gate[:, None], kept

    def _modulated(self, told: Tensor) -> Tensor:
        """float32[N,6,C]."""
        if self.modulation is None:
            assert self.own is not None
            return (told + self.own).float()
        found: Tensor = self.modulation(F.silu(told)).float()
        return found.view(len(told), 6, -1)

    def _attend(self, x: Tensor, kept: Kept | None) -> tuple[Tensor, Kept]:
        n, length, width = x.shape
        parts = self.qkv(x.to(self.qkv.weight.dtype)).view(n, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        scale = self.scales.float().clamp(max=LARGEST_SCALE).exp().to(q.dtype)
        q, k = F.normalize(q, dim=-1) * scale[:, None, None], F.normalize(k, dim=-1)
        if kept is not None:
            k, v = torch.cat([kept[0], k], dim=2), torch.cat([kept[1], v], dim=2)
        said = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        said = said.transpose(1, 2).reshape(n, length, width)
        return self.projection(said).float(), (k, v)


class VAR(nn.Module):
    """Logits of each code of a scale."""

    def __init__(self, plan: VARPlan) -> None:
        super().__init__()
        self.plan = plan
        width = plan.width
        self.classes = nn.Embedding(plan.classes, width)
        self.start = nn.Parameter(torch.empty(plan.scales[0] ** 2, width))
        self.positions = nn.Parameter(torch.empty(plan.tokens, width))
        self.levels = nn.Embedding(len(plan.scales), width)
        self.codes = nn.Linear(plan.code_width, width)
        self.shared = nn.Linear(width, 6 * width) if plan.shared else None
        self.blocks = nn.ModuleList([Block(plan) for _ in range(plan.depth)])
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, plan.codes)

    def forward(
        self, scale: int, seen: Tensor | None, condition: Tensor, kept: list[Kept | None]
    ) -> Tensor:
        """float32[N,l,codes], l the codes of the map at place `scale`.

        seen float32[N,code_width,side,side]: the image so far at this scale; None at the first.
        condition int64[N]. kept: one a block, replaced by what it keeps with this scale's.
        """
        told = self.classes(condition)
        x = self._tokens(scale, seen, told)
        shared = told
        if self.shared is not None:
            shared = self.shared(F.silu(told)).view(len(told), 6, -1)
        for i, block in enumerate(self.blocks):
            x, kept[i] = block(x, shared, kept[i])
        factor, shift = self.modulation(F.silu(told)).float().view(len(told), 2, -1).unbind(1)
        x = layer_norm(x) * (factor + 1)[:, None] + shift[:, None]
        logits: Tensor = self.out(x.to(self.out.weight.dtype)).float()
        return logits

    def _tokens(self, scale: int, seen: Tensor | None, told: Tensor) -> Tensor:
        """float32[N,l,C]."""
        sides = self.plan.scales
        begin = sum(side**2 for side in sides[:scale])
        places = self.positions[begin : begin + sides[scale] ** 2] + self.levels.weight[scale]
        if seen is None:
            first: Tensor = told[:, None] + self.start + places
            return first.float()
        tokens = seen.flatten(2).transpose(1, 2).to(self.codes.weight.dtype)
        later: Tensor = self.codes(tokens) + places
        return later.float()
