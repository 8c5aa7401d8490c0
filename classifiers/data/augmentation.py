"""Augmentation of whole batches on the device, each image by its own random numbers.

All numbers come from generators on the CPU, so the same seed does the same on every device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classifiers.recipes.recipe import Augmentation, Fill

ERASED_AREA = (0.02, 1 / 3)  # share of the image, Zhong et al. 2020
ERASED_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Framing:
    """How each of N images is cropped and mirrored: int64[2,N], top and left, and bool[N]."""

    corners: Tensor
    mirrored: Tensor

    @classmethod
    def draw(cls, count: int, free: int, generator: torch.Generator) -> "Framing":
        """At random: corners from 0 to `free`, half of the images mirrored."""
        corners = torch.randint(free + 1, (2, count), generator=generator)
        return cls(corners, torch.rand(count, generator=generator) < 0.5)

    @classmethod
    def join(cls, parts: "Sequence[Framing]") -> "Framing":
        """One after the other."""
        corners = torch.cat([part.corners for part in parts], dim=1)
        return cls(corners, torch.cat([part.mirrored for part in parts]))


def crop(padded: Tensor, rows: Tensor, size: int, framing: Framing) -> Tensor:
    """uint8[N,C,P,P] => uint8[len(rows),C,size,size], each from its own corner."""
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # a view: N, C, top, left, size, size
    top, left = framing.corners.to(padded.device)
    return windows[rows, :, top, left]


def mirror(images: Tensor, framing: Framing) -> Tensor:
    """Left to right, those that the framing says."""
    mirrored = framing.mirrored.to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def random_erasing(images: Tensor, probability: float, fill: Fill = "mean") -> Tensor:
    """In each image chosen, one rectangle becomes 0, the mean of normalised pixels, or noise."""
    count, channels, height, width = images.shape
    area = torch.empty(count).uniform_(*ERASED_AREA) * height * width
    aspect = torch.empty(count).uniform_(*map(math.log, ERASED_ASPECT)).exp()
    rows = _random_span((area * aspect).sqrt(), height)
    columns = _random_span((area / aspect).sqrt(), width)
    chosen = torch.rand(count) < probability
    erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
    if fill == "mean":
        return images.masked_fill(erased[:, None].to(images.device), 0.0)
    noise = torch.randn(int(erased.sum()), channels)
    images = images.clone()
    images.permute(0, 2, 3, 1)[erased.to(images.device)] = noise.to(images.device)
    return images


def _random_span(lengths: Tensor, size: int) -> Tensor:
    """bool[N,size]: a stretch of each length, rounded and cut to 1 to size, at a random place."""
    lengths = lengths.round().clamp(1, size)
    starts = (torch.rand(len(lengths)) * (size - lengths + 1)).floor()
    positions = torch.arange(size)
    return (positions >= starts[:, None]) & (positions < (starts + lengths)[:, None])


def mix_images(
    images: Tensor, labels: Tensor, classes: int, settings: Augmentation
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix: images mixed in pairs, and float32[N,classes], the shares of each class."""
    from torchvision.transforms import v2

    kinds = ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
    known = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha > 0]
    mixed: tuple[Tensor, Tensor] = known[int(torch.randint(len(known), ()))](images, labels)
    return mixed
