"""The autoencoder of VQ-VAE-2 (Razavi et al. 2019, section 3.1 and figure 2a): codes on two levels.

The bottom level has a code for 4 x 4 pixels, the top one for 8 x 8. The bottom codes are of what
the encoder sees and what the top codes say already; the decoder is given both.
"""

from typing import Any

import torch
from torch import Tensor, nn

from generation.families.vq_vae_2.codebook import Codebook
from generation.families.vq_vae_2.recipe import HierarchyShape


class Residual(nn.Module):
    """x + conv1(relu(conv3(relu(x))))."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, inner, 3, padding=1)
        self.back = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.back(self.wide(x.relu()).relu())
        return out


def _halved(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride=2, padding=1)


def _doubled(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)


def _stack(before: int, shape: HierarchyShape) -> list[nn.Module]:
    """A convolution, residual blocks, a ReLU."""
    blocks = [Residual(shape.hidden, shape.residual) for _ in range(shape.blocks)]
    return [nn.Conv2d(before, shape.hidden, 3, padding=1), *blocks, nn.ReLU()]


class Hierarchy(nn.Module):
    """Of images of `channels` channels."""

    def __init__(self, shape: HierarchyShape, channels: int, decay: float = 0.99) -> None:
        super().__init__()
        hidden, half, width = shape.hidden, shape.hidden // 2, shape.width
        entry: list[Any] = [_halved(channels, half), nn.ReLU(), _halved(half, hidden), nn.ReLU()]
        self.encode_bottom = nn.Sequential(*entry, *_stack(hidden, shape))
        self.encode_top = nn.Sequential(_halved(hidden, half), nn.ReLU(), *_stack(half, shape))
        self.to_top = nn.Conv2d(hidden, width, 1)
        self.top = Codebook(shape.codes, width, decay)
        self.decode_top = nn.Sequential(*_stack(width, shape), _doubled(hidden, width))
        self.to_bottom = nn.Conv2d(hidden + width, width, 1)
        self.bottom = Codebook(shape.codes, width, decay)
        self.enlarge_top = _doubled(width, width)
        exit_ = [_doubled(hidden, half), nn.ReLU(), _doubled(half, channels)]
        self.decode = nn.Sequential(*_stack(2 * width, shape), *exit_)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x float[N,C,H,W] in [-1, 1] => what is made of its codes, and how far the latents are
        from these: mean squares, of both levels together."""
        top, bottom, missed, _ = self._codes(x)
        return self._decoded(top, bottom), missed

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """int64[N,H/8,W/8] and int64[N,H/4,W/4], of the top and the bottom."""
        _, _, _, numbers = self._codes(x)
        return numbers

    def images(self, top: Tensor, bottom: Tensor) -> Tensor:
        """float[N,C,H,W] of such codes."""
        return self._decoded(self.top.planes(top), self.bottom.planes(bottom))

    def _codes(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        seen = self.encode_bottom(x)
        top, top_missed, first = self.top(self.to_top(self.encode_top(seen)))
        both = torch.cat([self.decode_top(top), seen], dim=1)
        bottom, bottom_missed, second = self.bottom(self.to_bottom(both))
        return top, bottom, top_missed + bottom_missed, (first, second)

    def _decoded(self, top: Tensor, bottom: Tensor) -> Tensor:
        said: Tensor = self.decode(torch.cat([self.enlarge_top(top), bottom], dim=1))
        return said
