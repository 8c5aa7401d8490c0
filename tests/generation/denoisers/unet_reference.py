"""Layers of a U-Net on pixels, from the papers, as functions of a network's weights."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Paper:
    """The layers by their names. scale: of residual sums."""

    def __init__(self, network: nn.Module, scale: float = 1.0) -> None:
        self.weights, self.scale = network.state_dict(), scale

    def linear(self, name: str, x: Tensor) -> Tensor:
        return (
            torch.einsum("...i,oi->...o", x, self.weights[f"{name}.weight"])
            + self.weights[f"{name}.bias"]
        )

    def conv(self, name: str, x: Tensor) -> Tensor:
        """By columns of patches."""
        weight = self.weights[f"{name}.weight"]
        out, _, size, _ = weight.shape
        columns = F.unfold(x, size, padding=size // 2)
        product = weight.reshape(out, -1) @ columns
        shaped = product.reshape(len(x), out, *x.shape[2:])
        return shaped + self.weights[f"{name}.bias"][:, None, None]

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Groups of one channel: no layer of the tiny network has more than 32."""
        flat = x.flatten(2)
        groups = int(np.gcd(32, x.shape[1]))
        grouped = flat.reshape(len(x), groups, -1)
        centred = grouped - grouped.mean(2, keepdim=True)
        normed = centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()
        weight, bias = (self.weights[f"{name}.{part}"][:, None] for part in ("weight", "bias"))
        return (normed.reshape(flat.shape) * weight + bias).reshape(x.shape)

    def residual(self, name: str, x: Tensor, h: Tensor, side: int = 0) -> Tensor:
        y = swish(self.norm(f"{name}.norm1", x))
        if side:
            x, y = (half(z) if side < 0 else twice(z) for z in (x, y))
        y = self.conv(f"{name}.conv1", y)
        scale, shift = self.linear(f"{name}.film", swish(h)).chunk(2, 1)
        y = self.norm(f"{name}.norm2", y) * (1 + scale[..., None, None]) + shift[..., None, None]
        if f"{name}.skip.weight" in self.weights:
            x = self.conv(f"{name}.skip", x)
        return (x + self.conv(f"{name}.conv2", swish(y))) * self.scale

    def heads(self, name: str, tokens: Tensor, heads: int = 1) -> Tensor:
        """Attention of tokens [N,T,C] to each other, head by head."""
        parts = (part.chunk(heads, 2) for part in self.linear(f"{name}.qkv", tokens).chunk(3, 2))
        found = [
            torch.softmax(query @ key.mT / query.shape[2] ** 0.5, 2) @ value
            for query, key, value in zip(*parts, strict=True)
        ]
        return self.linear(f"{name}.out", torch.cat(found, 2))

    def attention(self, name: str, x: Tensor, heads: int = 1) -> Tensor:
        tokens = self.norm(f"{name}.norm", x).flatten(2).mT
        found = self.heads(name, tokens, heads).mT.reshape(x.shape)
        return (x + found) * self.scale


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def half(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
