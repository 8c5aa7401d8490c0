"""Labelled images as training data: which of them a step sees, from its own random numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generation.training.processes import seed_torch


@dataclass(frozen=True)
class TrainingImages:
    """Everything a stage learns from, in memory.

    images uint8[N,C,H,W] at the stage's resolution; parents uint8[N,C,h,w] at the parent's, None
    for a base stage; conditions int64[N], what the network is told of each image.
    """

    images: Tensor
    parents: Tensor | None
    conditions: Tensor


@dataclass(frozen=True)
class DrawnImages:
    """TrainingImages drawn for a part of a batch, and where its further random numbers come from.

    rng: of this part alone; an objective draws its noise from it.
    """

    images: Tensor
    parents: Tensor | None
    conditions: Tensor
    rng: np.random.Generator


def draw_images(
    data: TrainingImages, size: int, rng: np.random.Generator, *, flip: bool
) -> DrawnImages:
    """`size` images, each any of all; with `flip` half of them are mirrored, their parents too."""
    rows = torch.from_numpy(rng.integers(len(data.images), size=size))
    images = data.images[rows]
    parents = None if data.parents is None else data.parents[rows]
    if flip:
        mirrored = torch.from_numpy(rng.random(size) < 0.5)[:, None, None, None]
        images = torch.where(mirrored, images.flip(3), images)
        parents = None if parents is None else torch.where(mirrored, parents.flip(3), parents)
    return DrawnImages(images, parents, data.conditions[rows], rng)


@dataclass(frozen=True)
class ImageBatches:
    """`size` images for each part of each step, as one process sees them."""

    data: TrainingImages
    size: int
    seed: int
    process: int
    flip: bool

    def batch(self, step: int, part: int) -> DrawnImages:
        counter = [0, 0, self.process, part]
        rng = np.random.Generator(np.random.Philox(key=[self.seed, step], counter=counter))
        dropout_seed = np.random.SeedSequence([self.seed, step, *counter]).generate_state(1)
        seed_torch(int(dropout_seed[0]))
        return draw_images(self.data, self.size, rng, flip=self.flip)


def to_signal(images: Tensor) -> Tensor:
    """uint8 [0, 255] => float32 [-1, 1]."""
    return images.float() / 127.5 - 1
