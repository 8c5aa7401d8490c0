"""Noise-conditioning augmentation: what a super-resolution stage sees of its parent."""

from math import pi, sin

import torch
from torch import Tensor


def augment(parent: Tensor, noise: Tensor, level: float | Tensor) -> Tensor:
    """Noise-conditioning augmentation (Saharia et al. 2022, section 2.4), variance preserving.

    `level` in [0, 1) counts along a cosine schedule: abar = cos(level * pi / 2)^2; 0 leaves the
    parent as it is.
    """
    if not isinstance(level, Tensor):
        level = torch.tensor(level, dtype=torch.float64)
    angle = level * (torch.pi / 2)
    shape = (-1,) + (1,) * (parent.ndim - 1)
    keep = torch.cos(angle).to(parent).reshape(shape)
    add = torch.sin(angle).to(parent).reshape(shape)
    return keep * parent + add * noise


def noisy_range(level: float) -> float:
    """What an image with that noise is divided by to be stored: three deviations of it fit."""
    return 1 + DEVIATIONS * sin(level * pi / 2)


DEVIATIONS = 3
