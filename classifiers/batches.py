"""Training batches of a set that lives on the device as one uint8 tensor.

A batch follows from the seed and the step alone, so a run can go on from any step.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from classifiers.augmentation import mix_images, random_crops, random_erasing, random_flips
from classifiers.recipe import ClassifierRecipe
from generation.image_sets import LabelledImages
from generation.timm_classifier import normalise, to_channels


class ResidentBatches:
    """All images of a training set on one device, augmented batch by batch."""

    def __init__(
        self, recipe: ClassifierRecipe, data: LabelledImages, seed: int, device: torch.device
    ) -> None:
        settings = recipe.augmentation
        images = to_channels(data.images, recipe.channels)
        shift = (settings.shift, settings.shift)
        border = ((0, 0), (0, 0), shift, shift)
        mode: Literal["constant", "reflect"] = (
            "constant" if settings.border == "black" else "reflect"
        )
        self._padded = torch.from_numpy(np.pad(images, border, mode)).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)
        self._classes = len(data.class_ids)
        self._recipe = recipe
        self._seed = seed

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """float32[B,C,H,W] normalised, and labels int64[B], or float32[B,classes] if mixed."""
        recipe, settings = self._recipe, self._recipe.augmentation
        chosen = batch_rows(len(self._labels), recipe.batch, self._seed, step)
        rows = torch.from_numpy(chosen).to(self._padded.device)
        images = random_crops(self._padded, rows, recipe.resolution)
        if settings.flip:
            images = random_flips(images)
        images, labels = normalise(images, recipe), self._labels[rows]
        if settings.erasing > 0:
            images = random_erasing(images, settings.erasing)
        if settings.mixup > 0 or settings.cutmix > 0:
            images, labels = mix_images(images, labels, self._classes, settings)
        return images.contiguous(memory_format=torch.channels_last), labels


def batch_rows(images: int, batch: int, seed: int, step: int) -> np.ndarray:
    """int64[batch]: which images step `step` sees.

    Epochs follow each other without a gap, each in its own random order, so every step is a full
    batch and every image is seen equally often, give or take one.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // images
    return np.concatenate(
        [
            epoch_order(images, seed, int(epoch))[positions[epochs == epoch] - epoch * images]
            for epoch in np.unique(epochs)
        ]
    )


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """int64[images]: the order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(images)
