"""The 5/3 wavelet (Le Gall & Tabatabai 1988), by lifting; linear, and inverted exactly.

    d[n] = x[2n+1] - (x[2n] + x[2n+2]) / 2        details
    s[n] = x[2n] + (d[n-1] + d[n]) / 4            the image at half its side

mirrored at the borders. Both directions of an image make four images of half the side, which stand
as channels: averages, then details across, down and both.
"""

import torch
from torch import Tensor


def to_bands(x: Tensor, levels: int) -> Tensor:
    """float[N,C,H,W] => float[N, C * 4**levels, H / 2**levels, W / 2**levels]."""
    for _ in range(levels):
        averages, details = _split(x)
        x = torch.cat([*_split_down(averages), *_split_down(details)], dim=1)
    return x


def from_bands(bands: Tensor, levels: int) -> Tensor:
    """The inverse of `to_bands`."""
    for _ in range(levels):
        averages, down, across, both = bands.chunk(4, dim=1)
        bands = _join(_join_down(averages, down), _join_down(across, both))
    return bands


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Averages and details along the last dimension."""
    even, odd = x[..., 0::2], x[..., 1::2]
    details = odd - (even + _after(even)) / 2
    return even + (_before(details) + details) / 4, details


def _join(averages: Tensor, details: Tensor) -> Tensor:
    even = averages - (_before(details) + details) / 4
    odd = details + (even + _after(even)) / 2
    return torch.stack([even, odd], dim=-1).flatten(-2)


def _split_down(x: Tensor) -> list[Tensor]:
    return [part.transpose(2, 3) for part in _split(x.transpose(2, 3))]


def _join_down(averages: Tensor, details: Tensor) -> Tensor:
    return _join(averages.transpose(2, 3), details.transpose(2, 3)).transpose(2, 3)


def _after(x: Tensor) -> Tensor:
    return torch.cat([x[..., 1:], x[..., -1:]], dim=-1)


def _before(x: Tensor) -> Tensor:
    return torch.cat([x[..., :1], x[..., :-1]], dim=-1)
