"""Layers of U-Nets on pixels.

A residual block is that of Dhariwal & Nichol 2021 as Salimans & Ho 2022 have it: with h the
embedding of noise level and class,

    y = conv(silu(norm(x)));  scale, shift = linear(silu(h))
    out = skip(x) + conv(dropout(silu(norm(y) * (1 + scale) + shift)))

One that resamples (Brock et al. 2019) does so to x and, before its first convolution, to y.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", bound=nn.Module)
GROUPS = 32
LEVEL_SCALE = 1000.0  # sinusoids are those of 1000 discrete steps (Ho et al. 2020)


def group_norm(channels: int, groups: int = GROUPS) -> nn.GroupNorm:
    """In `groups`, or in as many as divide narrower layers.

    A group of one channel takes from each its mean and contrast, which a network then cannot say.
    """
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps=1e-6)


def zeroed(layer: Layer) -> Layer:
    """Its weights at zero, so that the block around it is the identity at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def sinusoids(level: Tensor, features: int) -> Tensor:
    """float[N], in about [0, 1] => float[N,features]."""
    half = features // 2
    exponents = torch.arange(half, device=level.device) / max(1, half - 1)
    angles = LEVEL_SCALE * level[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class LevelEmbedding(nn.Module):
    """A number as a vector: MLP(sinusoids of the number)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)

    def forward(self, level: Tensor) -> Tensor:
        """float[N], in about [0, 1] => float[N,width]."""
        told: Tensor = self.second(F.silu(self.first(sinusoids(level, self.features))))
        return told


class Embedding(nn.Module):
    """A number and a class as one vector: MLP(sinusoids of the number) + embedding of the class."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)
        self.classes = nn.Embedding(classes, width)

    def forward(self, level: Tensor, condition: Tensor) -> Tensor:
        """level float[N], in about [0, 1]; condition int64[N] => float[N,width]."""
        waves = sinusoids(level, self.features)
        told: Tensor = self.second(F.silu(self.first(waves))) + self.classes(condition)
        return told


class ResidualBlock(nn.Module):
    """See above. resample: -1 halves the side of x and y, 1 doubles it. scale: of the sum. groups:
    of the norms."""

    def __init__(
        self,
        before: int,
        channels: int,
        embedding: int,
        dropout: float,
        *,
        resample: int = 0,
        scale: float = 1.0,
        groups: int = GROUPS,
    ) -> None:
        super().__init__()
        self.resample, self.scale = resample, scale
        self.norm1, self.norm2 = group_norm(before, groups), group_norm(channels, groups)
        self.conv1 = nn.Conv2d(before, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = nn.Conv2d(before, channels, 1) if before != channels else nn.Identity()

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        y = F.silu(self.norm1(x))
        if self.resample:
            x, y = (resampled(image, self.resample) for image in (x, y))
        y = self.conv1(y)
        scale, shift = self.film(F.silu(h))[:, :, None, None].chunk(2, dim=1)
        y = F.silu(self.norm2(y) * (1 + scale) + shift)
        out: Tensor = self.scale * (self.skip(x) + self.conv2(self.dropout(y)))
        return out


def resampled(x: Tensor, direction: int) -> Tensor:
    """-1: half the side, by means of four pixels; 1: twice the side, each pixel four times."""
    if direction < 0:
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class SelfAttention(nn.Module):
    """Over tokens, float[N,T,C]: x + linear(attention(norm(x))). scale: of the sum. groups: of the
    norm."""

    def __init__(
        self, channels: int, heads: int, *, scale: float = 1.0, groups: int = GROUPS
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} heads do not divide {channels} channels")
        self.heads, self.scale = heads, scale
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x.transpose(1, 2)).transpose(1, 2)
        split = self.qkv(normed).unflatten(2, (3, self.heads, -1))  # N, T, 3, heads, width
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.scale * (x + self.out(found.transpose(1, 2).flatten(2)))
        return out


def on_images(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer over tokens on float[N,C,H,W]."""
    tokens = layer(x.flatten(2).transpose(1, 2))
    images: Tensor = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
    return images


class Enlarged(nn.Module):
    """Twice the side: each pixel four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(resampled(x, 1))
        return out


def halved(channels: int) -> nn.Conv2d:
    """Half the side, by a convolution of stride 2."""
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
