"""Augmentation of whole batches on the device, each image by its own random numbers.

All numbers come from torch's CPU generator, so the same seed does the same on every device.
"""

import math

import torch
from torch import Tensor

from classifiers.recipe import Augmentation

ERASED_AREA = (0.02, 1 / 3)  # share of the image, Zhong et al. 2020
ERASED_ASPECT = (0.3, 1 / 0.3)


def random_crops(padded: Tensor, rows: Tensor, size: int) -> Tensor:
    """uint8[N,C,P,P] => uint8[len(rows),C,size,size], each at its own place."""
    free = padded.shape[-1] - size
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # a view: N, C, top, left, size, size
    top, left = (torch.randint(free + 1, (len(rows),)).to(padded.device) for _ in range(2))
    return windows[rows, :, top, left]


def random_flips(images: Tensor) -> Tensor:
    """Mirror half of the images left to right."""
    mirrored = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def random_erasing(images: Tensor, probability: float) -> Tensor:
    """Set one rectangle to 0, the mean of normalised pixels, in each image chosen."""
    count, _, height, width = images.shape
    area = torch.empty(count).uniform_(*ERASED_AREA) * height * width
    aspect = torch.empty(count).uniform_(*map(math.log, ERASED_ASPECT)).exp()
    rows = _random_span((area * aspect).sqrt(), height)
    columns = _random_span((area / aspect).sqrt(), width)
    chosen = torch.rand(count) < probability
    erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
    return images.masked_fill(erased[:, None].to(images.device), 0.0)


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
