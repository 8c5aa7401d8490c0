"""EDM2's network (Karras et al. 2024, configuration G), as it is sampled.

Every layer keeps the magnitude of what it is given. Weights are of unit magnitude: the checkpoint's
converter makes them so once, gains included, where training does at every step (equations 47, 66).
So layers here are plain ones without biases; what else preserves magnitudes is below.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generation.families.edm2.plan import EDM2Plan

EPSILON = 1e-4
SILU_DEVIATION = 0.596  # of SiLU of a standard normal: equation 81
RESIDUAL, ATTENTION, CLASS, SKIP = 0.3, 0.3, 0.5, 0.5  # t of each sum
LARGEST = 256  # activations are clipped there
SIGMA_DATA = 0.5


def normalised(x: Tensor, dim: int) -> Tensor:
    """Of unit magnitude along `dim` (equation 30)."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    unit: Tensor = x / (EPSILON + norm / sqrt(x.shape[dim])).to(x.dtype)
    return unit


def silu(x: Tensor) -> Tensor:
    """Equation 81."""
    return F.silu(x) / SILU_DEVIATION


def mixed(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a and b as 1 - t to t (equation 88)."""
    return torch.lerp(a, b, t) / sqrt((1 - t) ** 2 + t**2)


def joined(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of both, contributing as 1 - t to t (equation 103)."""
    n, m = a.shape[1], b.shape[1]
    scale = sqrt((n + m) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale / sqrt(n) * (1 - t)), b * (scale / sqrt(m) * t)], dim=1)


def convolution(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    """Of a filter of `side` pixels; the image keeps its size."""
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)


class Attention(nn.Module):
    """To all places of a level; queries, keys and values are of unit magnitude."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.heads = width // head
        self.qkv = convolution(width, 3 * width, 1)
        self.projection = convolution(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float[N,C,H,W] => the same shape."""
        n, width, high, wide = x.shape
        parts = self.qkv(x).reshape(n, self.heads, width // self.heads, 3, high * wide)
        q, k, v = normalised(parts, 2).permute(3, 0, 1, 4, 2)
        said = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        out: Tensor = self.projection(said.reshape(n, width, high, wide))
        return out


class Block(nn.Module):
    """Figure 21. down: on the way down, where pixels are normalised and the skip comes first.
    resize: "down" halves the side, "up" doubles it."""

    def __init__(
        self,
        inputs: int,
        width: int,
        embedding: int,
        *,
        down: bool,
        resize: str = "",
        head: int | None = None,
    ) -> None:
        super().__init__()
        self.down, self.resize, self.width = down, resize, width
        self.skip = convolution(inputs, width, 1) if inputs != width else nn.Identity()
        self.embedding = nn.Linear(embedding, width, bias=False)
        self.first = convolution(width if down else inputs, width)
        self.second = convolution(width, width)
        self.attention = None if head is None else Attention(width, head)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x float[N,C,H,W]; told float[N,E]."""
        if self.resize == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resize == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.down:
            x = normalised(self.skip(x), 1)
        scale = (self.embedding(told) + 1)[:, :, None, None]
        y = self.second(silu(self.first(silu(x)) * scale))
        x = mixed(x if self.down else self.skip(x), y, RESIDUAL)
        if self.attention is not None:
            x = mixed(x, self.attention(x), ATTENTION)
        return x.clamp(-LARGEST, LARGEST)


class EDM2(nn.Module):
    """The U-Net, and the preconditioning around it (Karras et al. 2022, table 1)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, plan: EDM2Plan) -> None:
        super().__init__()
        self.plan = plan
        self.register_buffer("frequencies", torch.empty(plan.noise))
        self.register_buffer("phases", torch.empty(plan.noise))
        self.noise = nn.Linear(plan.noise, plan.embedding, bias=False)
        self.classes = nn.Embedding(plan.classes, plan.embedding) if plan.classes else None
        self.first = convolution(plan.channels + 1, plan.widths[0])
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.joins: list[bool] = []  # of each decoder block, whether it takes a skip
        self._build()
        self.last = convolution(plan.widths[0], plan.channels)

    def _build(self) -> None:
        plan, width = self.plan, self.plan.widths[0]
        skips = [width]
        heads = [
            plan.head if plan.side >> i in plan.attends else None for i in range(len(plan.widths))
        ]
        for level, wanted in enumerate(plan.widths):
            if level:
                self.encoder.append(Block(width, width, plan.embedding, down=True, resize="down"))
                skips.append(width)
            for _ in range(plan.blocks):
                block = Block(width, wanted, plan.embedding, down=True, head=heads[level])
                self.encoder.append(block)
                width = wanted
                skips.append(width)
        for level in reversed(range(len(plan.widths))):
            if level == len(plan.widths) - 1:
                self._add(Block(width, width, plan.embedding, down=False, head=plan.head))
                self._add(Block(width, width, plan.embedding, down=False))
            else:
                self._add(Block(width, width, plan.embedding, down=False, resize="up"))
            for _ in range(plan.blocks + 1):
                inputs, width = width + skips.pop(), plan.widths[level]
                block = Block(inputs, width, plan.embedding, down=False, head=heads[level])
                self._add(block, joins=True)

    def _add(self, block: Block, *, joins: bool = False) -> None:
        self.decoder.append(block)
        self.joins.append(joins)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """x float32[N,C,H,W] of noise level sigma, float32[N]; labels int64[N], None where it knows
        no classes. Returns E[x0 | x], float32."""
        level = sigma.reshape(-1, 1, 1, 1)
        total = level**2 + SIGMA_DATA**2
        scaled = (x / total.sqrt()).to(self.first.weight.dtype)
        said = self.body(scaled, sigma.log() / 4, labels).float()
        return x * SIGMA_DATA**2 / total + said * level * SIGMA_DATA / total.sqrt()

    def body(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """The U-Net alone. noise float32[N]."""
        waves = noise[:, None] * self.frequencies.float() + self.phases.float()
        told = self.noise((waves.cos() * sqrt(2)).to(x.dtype))
        if self.classes is not None:
            told = mixed(told, self.classes(labels), CLASS)
        told = silu(told)
        x = self.first(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for block in self.encoder:
            x = block(x, told)
            skips.append(x)
        for block, joins in zip(self.decoder, self.joins, strict=True):
            x = block(joined(x, skips.pop(), SKIP) if joins else x, told)
        said: Tensor = self.last(x)
        return said
