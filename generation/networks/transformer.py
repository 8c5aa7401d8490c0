"""DiT's network (Peebles & Xie 2023, arXiv 2212.09748, section 3), which SiT shares.

Patches of p x p become tokens with fixed positions, sines and cosines of row and column. With c the
sum of the embeddings of time and class, each block is adaLN-Zero: attention and MLP of tokens that
are normalised without weights,

    shift, scale, gate (of each) = linear(silu(c))
    x = x + gate * attention(norm(x) * (1 + scale) + shift)
    x = x + gate * mlp(norm(x) * (1 + scale) + shift)

whose linear layers begin at zero, so that a block is the identity at first; then a last norm, of
shift and scale, and a linear layer to the pixels of each patch.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from generation.networks.blocks import zeroed

FREQUENCIES = 256  # sinusoids of the time
MLP = 4  # times the width
EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class TransformerPlan:
    """side, channels: of what the network sees; out_channels: of what it says. classes: rows of its
    class embedding, the null class's included."""

    side: int
    channels: int
    out_channels: int
    classes: int
    patch: int
    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if self.side % self.patch:
            raise ValueError(f"patches of {self.patch} do not divide a side of {self.side}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width}: give a multiple of 4 and of heads {self.heads}")


class Transformer(nn.Module):
    """See above. Its positions are no part of its state: they follow from its shape."""

    def __init__(self, plan: TransformerPlan) -> None:
        super().__init__()
        width, patch = plan.width, plan.patch
        self.plan = plan
        self.patches = nn.Conv2d(plan.channels, width, patch, stride=patch)
        self.time = TimeEmbedding(width)
        self.classes = nn.Embedding(plan.classes, width)
        self.blocks = nn.ModuleList(Block(width, plan.heads) for _ in range(plan.depth))
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, patch * patch * plan.out_channels))
        self.checkpointing = False
        nn.init.normal_(self.classes.weight, std=EMBEDDING_STD)
        nn.init.xavier_uniform_(self.patches.weight.view(width, -1))
        nn.init.zeros_(_bias(self.patches))

    def set_grad_checkpointing(self) -> None:
        """Compute what is within a block again in the backward pass."""
        self.checkpointing = True

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """x float[N,C,H,W]; time float[N], in its family's units; condition int64[N].

        Returns float[N,out_channels,H,W].
        """
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.positions(x.device).to(tokens)
        c = F.silu(self.time(time).to(tokens) + self.classes(condition))
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, c, use_reentrant=False)
            else:
                tokens = block(tokens, c)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=2)
        return unpatched(self.out(_normed(tokens) * (1 + scale) + shift), self.plan.patch)

    def positions(self, device: torch.device | str = "cpu") -> Tensor:
        """float32[T,width]."""
        return grid_positions(self.plan.side // self.plan.patch, self.plan.width, device)


class Block(nn.Module):
    """Attention and MLP over tokens, float[N,T,D], told c, float[N,D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.projection = _linear(width, 3 * width), _linear(width, width)
        self.first, self.second = _linear(width, MLP * width), _linear(MLP * width, width)
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        parts = self.modulation(c)[:, None].chunk(6, dim=2)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        x = x + gate * self._attended(_normed(x) * (1 + scale) + shift)
        hidden = self.first(_normed(x) * (1 + mlp_scale) + mlp_shift)
        out: Tensor = x + mlp_gate * self.second(F.gelu(hidden, approximate="tanh"))
        return out

    def _attended(self, x: Tensor) -> Tensor:
        split = self.qkv(x).unflatten(2, (3, self.heads, -1))  # N, T, 3, heads, width
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.projection(found.transpose(1, 2).flatten(2))
        return out


class TimeEmbedding(nn.Module):
    """Cosines, then sines, of 128 frequencies from 1 to almost 1 / 10000, and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FREQUENCIES, width), nn.Linear(width, width)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=EMBEDDING_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, time: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        numbers = torch.arange(half, dtype=torch.float32, device=time.device)
        frequencies = torch.exp(-math.log(10000) * numbers / half)  # rounded as the authors' are
        angles = time.float()[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.first.weight.dtype)
        out: Tensor = self.second(F.silu(self.first(waves)))
        return out


def grid_positions(grid: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """float32[grid * grid, width]: sines, then cosines, of the column; then those of the row."""
    quarter = width // 4
    exponents = torch.arange(quarter, dtype=torch.float64, device=device) / quarter
    places = torch.arange(grid, dtype=torch.float64, device=device)
    waves = places[:, None] * 10000.0**-exponents
    one = torch.cat([waves.sin(), waves.cos()], dim=1)  # grid, width / 2
    columns = one[None, :].expand(grid, grid, -1)
    rows = one[:, None].expand(grid, grid, -1)
    return torch.cat([columns, rows], dim=2).reshape(grid * grid, width).float()


def unpatched(tokens: Tensor, patch: int) -> Tensor:
    """float[N, T, p*p*C], the channel fastest, of a square of patches => float[N,C,H,W]."""
    grid = math.isqrt(tokens.shape[1])
    split = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (grid, grid))
    placed = split.permute(0, 5, 1, 3, 2, 4)  # N, C, row and p, column and p
    images: Tensor = placed.reshape(len(tokens), -1, grid * patch, grid * patch)
    return images


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _linear(before: int, after: int) -> nn.Linear:
    layer = nn.Linear(before, after)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
