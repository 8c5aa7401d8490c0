"""Codes of all scales to an image: the decoding half of VAR's multi-scale VQ-VAE.

The maps of codes add up (Tian et al. 2024, algorithm 2): each, enlarged to the finest side, passes
a convolution of its part of the scales, and is added. The sum is decoded by VQGAN's decoder.
"""

from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generation.families.var.plan import DecoderPlan

GROUPS, EPSILON = 32, 1e-6
MIXED = 0.5  # share of a mixer's convolution


def group_norm(width: int) -> nn.GroupNorm:
    """VQGAN's."""
    return nn.GroupNorm(GROUPS, width, eps=EPSILON)


def convolution(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    """The image keeps its size."""
    return nn.Conv2d(inputs, outputs, side, padding=side // 2)


class Residual(nn.Module):
    """Two convolutions beside the image."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(inputs), convolution(inputs, width)
        self.norm2, self.conv2 = group_norm(width), convolution(width, width)
        self.shortcut = convolution(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float[N,C,H,W]."""
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        out: Tensor = self.shortcut(x) + h
        return out


class Attention(nn.Module):
    """Of one head, to all places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.qkv, self.projection = convolution(width, 3 * width, 1), convolution(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float[N,C,H,W]."""
        n, width, high, wide = x.shape
        parts = self.qkv(self.norm(x)).view(n, 3, width, high * wide).transpose(2, 3)
        q, k, v = parts.unbind(1)
        said = F.scaled_dot_product_attention(q, k, v, scale=1 / sqrt(width))
        out: Tensor = x + self.projection(said.transpose(1, 2).reshape(x.shape))
        return out


class Enlarging(nn.Module):
    """Twice the side, each pixel repeated, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """float[N,C,H,W] => float[N,C,2H,2W]."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class MultiScaleDecoder(nn.Module):
    """Codebook, mixers and decoder."""

    def __init__(self, plan: DecoderPlan) -> None:
        super().__init__()
        self.plan = plan
        widest = plan.widths[-1]
        self.codebook = nn.Embedding(plan.codes, plan.code_width)
        self.mixers = nn.ModuleList(
            [convolution(plan.code_width, plan.code_width) for _ in range(plan.mixers)]
        )
        self.before = convolution(plan.code_width, plan.code_width)
        self.first = convolution(plan.code_width, widest)
        self.middle = nn.Sequential(
            Residual(widest, widest), Attention(widest), Residual(widest, widest)
        )
        self.levels = nn.ModuleList(self._levels())
        self.norm, self.last = group_norm(plan.widths[0]), convolution(plan.widths[0], 3)

    def _levels(self) -> list[nn.Sequential]:
        """Coarsest first; attention at the coarsest alone."""
        plan, width, found = self.plan, self.plan.widths[-1], []
        for level in reversed(range(len(plan.widths))):
            layers: list[nn.Module] = []
            for _ in range(plan.blocks):
                layers.append(Residual(width, plan.widths[level]))
                width = plan.widths[level]
                if level == len(plan.widths) - 1:
                    layers.append(Attention(width))
            if level:
                layers.append(Enlarging(width))
            found.append(nn.Sequential(*layers))
        return found

    def added(self, image: Tensor, codes: Tensor, place: float) -> Tensor:
        """`image` float32[N,C,S,S] with a map of codes int64[N,s,s] added; place: of its scale,
        from 0, the coarsest, to 1, the finest."""
        vectors = self.codebook(codes).permute(0, 3, 1, 2).float()
        if vectors.shape[-1] != image.shape[-1]:
            vectors = F.interpolate(vectors, image.shape[-2:], mode="bicubic")
        mixer = self.mixers[nearest_mixer(place, self.plan.mixers)]
        mixed: Tensor = vectors * (1 - MIXED) + mixer(vectors) * MIXED
        return image + mixed

    def forward(self, image: Tensor) -> Tensor:
        """float32[N,C,S,S], all maps added, to float32[N,3,H,W] in [-1, 1]."""
        x = self.middle(self.first(self.before(image)))
        for level in self.levels:
            x = level(x)
        return torch.clamp(self.last(F.silu(self.norm(x))), -1, 1)


def nearest_mixer(place: float, count: int) -> int:
    """Of the mixers, which stand at even distances between a margin and 1 less it.

    Scales 2 and 7 of ten stand half-way between two: as in the authors' code, rounding decides.
    """
    margin = 1 / 3 / count if count == 4 else 1 / 2 / count
    stands = np.linspace(margin, 1 - margin, count)
    return int(np.argmin(np.abs(stands - place)))
