"""Which images a training step sees: an order that follows from the seed and the step alone."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Visits:
    """How often an epoch sees an image: `weights[s]` times if it comes from source s.

    images: how many each source has; their rows follow each other. A weight of 0.5 takes another
    half of the source in each epoch, one of 3 takes every image three times.
    """

    images: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def once(cls, images: int) -> "Visits":
        """Every one of `images` images, once an epoch."""
        return cls((images,), (1.0,))

    def __len__(self) -> int:
        return sum(round(w * n) for n, w in zip(self.images, self.weights, strict=True))

    def batch_rows(
        self, batch: int, seed: int, step: int, repeats: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """What step `step` sees: rows, and their places in the run."""
        return batch_rows(self, batch, seed, step, repeats)


def batch_rows(
    visits: Visits, batch: int, seed: int, step: int, repeats: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """int64[batch] which images step `step` sees, and int64[batch] their places in the run.

    Epochs follow each other without a gap, each in its own random order, so every step is a full
    batch and every image is seen equally often, give or take one. With `repeats` an image comes so
    often in a batch, and an epoch is so much longer; copies stand far apart, since Mixup and CutMix
    mix neighbours.
    """
    places = np.arange(step * batch, (step + 1) * batch)
    places = places[np.argsort(places % repeats, kind="stable")]
    positions = places // repeats
    epochs = positions // len(visits)
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        own = epochs == epoch
        rows[own] = epoch_order(visits, seed, int(epoch))[positions[own] - epoch * len(visits)]
    return rows, places


def derived_seed(seed: int, *purpose: int) -> int:
    """Of the run's seed and what numbers are drawn for: below 2^64."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=2)
def epoch_order(visits: Visits, seed: int, epoch: int) -> np.ndarray:
    """int32[len(visits)], int64 if rows are more: the rows of one epoch in its order."""
    rng = np.random.default_rng([seed, epoch])
    rows, start = [], 0
    kind = np.int32 if sum(visits.images) < 2**31 else np.int64  # the order is the same
    for images, weight in zip(visits.images, visits.weights, strict=True):
        own = np.arange(start, start + images, dtype=kind)
        whole, rest = divmod(round(weight * images), images)
        rows += [own] * whole
        if rest:
            rows.append(rng.choice(own, rest, replace=False))
        start += images
    order = rows[0] if len(rows) == 1 else np.concatenate(rows)
    rng.shuffle(order)
    return order
