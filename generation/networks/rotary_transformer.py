"""What LightningDiT, JiT and DiT^DH share: DiT's blocks with a language model's parts.

    shift, scale, gate (of each) = linear(silu(c))
    x = x + gate * attention(rms(x) * (1 + scale) + shift)
    x = x + gate * swiglu(rms(x) * (1 + scale) + shift),    swiglu(x) = down(silu(a(x)) * b(x))

RMS norms have weights; queries and keys turn with their row and column (generation/networks/
rotary.py), and may be normalised for each head before.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.networks.rotary import turned

EPS = 1e-6


class RotaryBlock(nn.Module):
    """Attention and MLP over tokens, float[N,T,D]. hidden: of the MLP; normalised: whether queries
    and keys are."""

    def __init__(self, width: int, heads: int, hidden: int, *, normalised: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.RMSNorm(width, eps=EPS), nn.RMSNorm(width, eps=EPS)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query_norm, self.key_norm = (
            nn.RMSNorm(width // heads, eps=EPS) if normalised else nn.Identity() for _ in range(2)
        )
        self.gated, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, turns: Tensor) -> Tensor:
        """c float[N,1,D] for all tokens, or [N,T,D] for each; turns complex64[T, head width/2]."""
        parts = self.modulation(F.silu(c)).chunk(6, dim=2)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        x = x + gate * self._attended(self.norm(x) * (1 + scale) + shift, turns)
        seen = self.mlp_norm(x) * (1 + mlp_scale) + mlp_shift
        one, other = self.gated(seen).chunk(2, dim=2)
        out: Tensor = x + mlp_gate * self.down(F.silu(one) * other)
        return out

    def _attended(self, x: Tensor, turns: Tensor) -> Tensor:
        split = self.qkv(x).unflatten(2, (3, self.heads, -1))  # N, T, 3, heads, width
        query, key, value = split.permute(2, 0, 3, 1, 4)
        query, key = turned(self.query_norm(query), turns), turned(self.key_norm(key), turns)
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.projection(found.transpose(1, 2).flatten(2))
        return out


class RotaryEnd(nn.Module):
    """The last norm, its shift and scale, and what each token says."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPS)
        self.modulation, self.out = nn.Linear(width, 2 * width), nn.Linear(width, outputs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """float[N,T,D], c as the blocks' => float[N,T,outputs]."""
        shift, scale = self.modulation(F.silu(c)).chunk(2, dim=2)
        out: Tensor = self.out(self.norm(x) * (1 + scale) + shift)
        return out


def gated_width(width: int) -> int:
    """Of a SwiGLU that has as many weights as an MLP of four times the width."""
    return int(2 / 3 * 4 * width)


def as_table(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32[T, head width] each, as the authors' checkpoints keep them."""
    both = (torch.view_as_real(turns)[..., part].repeat_interleave(2, dim=1) for part in (0, 1))
    cosines, sines = both
    return cosines, sines
