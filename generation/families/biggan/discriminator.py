"""BigGAN-deep's discriminator (Brock et al. 2019, appendix B, figure 16; Miyato & Koyama 2018).

With h the features of an image, summed over places, and e_y the vector of its class:

    D(x, y) = linear(h) + <e_y, h>
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.families.biggan.network import BOTTLENECK, Attention
from generation.families.biggan.recipe import BigGANShape


class DiscriminatorBlock(nn.Module):
    """A residual block with a bottleneck; the skip path gains channels by a convolution."""

    def __init__(self, halves: bool, width: int, out: int) -> None:
        super().__init__()
        inner = max(1, out // BOTTLENECK)
        self.halves = halves
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(width, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, out, 1),
            ]
        )
        self.gained = nn.Conv2d(width, out - width, 1) if out > width else None

    def forward(self, x: Tensor) -> Tensor:
        h, (*convolutions, last) = x, self.convolutions
        for convolution in convolutions:
            h = convolution(h.relu())
        h = h.relu()
        if self.halves:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.gained is not None:
            x = torch.cat([x, self.gained(x)], dim=1)
        out: Tensor = last(h) + x
        return out


class Discriminator(nn.Module):
    """x float[N,3,H,W] in [-1, 1], labels int64[N] => float[N], above zero for what looks real."""

    def __init__(self, shape: BigGANShape, classes: int) -> None:
        super().__init__()
        width = shape.channel_width
        first, out = shape.discriminator[0][1] * width, shape.discriminator[-1][2] * width
        self.enter = nn.Conv2d(3, first, 3, padding=1)
        layers: list[nn.Module] = []
        for position, (halves, before, after) in enumerate(shape.discriminator):
            if position == shape.discriminator_attention:
                layers.append(Attention(before * width))
            layers.append(DiscriminatorBlock(halves, before * width, after * width))
        self.layers = nn.ModuleList(layers)
        self.linear = nn.Linear(out, 1)
        self.classes = nn.Embedding(classes, out)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.enter(x)
        for layer in self.layers:
            h = layer(h)
        h = h.relu().sum((2, 3))
        found: Tensor = self.linear(h)[:, 0] + (self.classes(labels) * h).sum(1)
        return found
