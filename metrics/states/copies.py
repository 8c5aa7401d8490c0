"""Nearest training images: how near a generator comes to repeating what it learned from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metrics.features.image_lists import ImageSet, read_image_list
from metrics.features.mergeable import sampling_keys
from metrics.features.release_features import FeatureBlock
from metrics.states.sample import Sample
from release.results.statistics import share, student_interval

PAIRS = 16  # closest pairs that a result names
QUANTILE = 0.01  # of held-out real images' distances, up to which an image counts as a copy
BLOCK = 2000


@dataclass(frozen=True)
class Nearest:
    """For each image of a sample the nearest training image seen so far.

    distances float64[N], Euclidean between features; keys uint64[N] of the training images.
    """

    distances: np.ndarray
    keys: np.ndarray

    def merge(self, other: "Nearest") -> "Nearest":
        """Of both sets of training images; of two at one distance, that with the lower key."""
        closer = other.distances < self.distances
        closer |= (other.distances == self.distances) & (other.keys < self.keys)
        return Nearest(
            np.where(closer, other.distances, self.distances),
            np.where(closer, other.keys, self.keys),
        )

    @property
    def n(self) -> int:
        """Images of the sample."""
        return len(self.distances)

    @property
    def total(self) -> "Nearest":
        """Itself."""
        return self


def nearest_images(sample: Sample, blocks: Iterable[FeatureBlock]) -> Nearest:
    """In one pass over the training images; there must be at least one."""
    found = Nearest(np.full(sample.n, np.inf), np.zeros(sample.n, np.uint64))
    for block in blocks:
        for start in range(0, len(block), BLOCK):
            rows = slice(start, start + BLOCK)
            found = found.merge(_nearest(sample, block.features[rows], block.keys[rows]))
    return found


def _nearest(sample: Sample, features: np.ndarray, keys: np.ndarray) -> Nearest:
    """Which one is nearest follows from float32 products; how far it is, from the difference."""
    lengths = (features**2).sum(axis=1)
    places = np.concatenate(
        [
            (lengths - 2 * (sample.features[start : start + BLOCK] @ features.T)).argmin(axis=1)
            for start in range(0, sample.n, BLOCK)
        ]
    )
    difference = sample.features - features[places]
    distances = np.sqrt(np.einsum("nd,nd->n", difference, difference, dtype=np.float64))
    return Nearest(distances, keys[places])


def copy_values(
    images: Sample, nearest: Nearest, held_out: Nearest | None
) -> dict[str, dict[str, Any]]:
    """nearest: mean distance to the nearest training image; copies: share that lies too near.

    Too near is as near as the nearest QUANTILE of the held-out real images lie. expected: share of
    these that lie so near: QUANTILE, or more where more of them repeat training images. An honest
    generator has about as many. Without held-out images there is only the distance.
    """
    closest = np.argsort(nearest.distances, kind="stable")[:PAIRS]
    pairs = [
        {
            "image": int(images.keys[i]),
            "nearest": int(nearest.keys[i]),
            "distance": float(nearest.distances[i]),
        }
        for i in closest
    ]
    values: dict[str, dict[str, Any]] = {
        "nearest": {
            "value": float(nearest.distances.mean()),
            "n": nearest.n,
            "interval": student_interval(nearest.distances),
            "pairs": pairs,
        }
    }
    if held_out is not None:
        threshold = float(np.quantile(held_out.distances, QUANTILE))
        values["nearest"]["held_out"] = float(held_out.distances.mean())
        values["copies"] = share(nearest.distances <= threshold) | {
            "threshold": threshold,
            "expected": float((held_out.distances <= threshold).mean()),
            "held_out_n": held_out.n,
        }
    return values


def name_pairs(
    pairs: list[dict[str, Any]], images: ImageSet, train: ImageSet, cache: Path
) -> list[dict[str, Any]]:
    """Image ids in place of sampling keys."""
    names = {
        "image": ids_by_key(images, {pair["image"] for pair in pairs}, cache),
        "nearest": ids_by_key(train, {pair["nearest"] for pair in pairs}, cache),
    }
    return [pair | {side: known[pair[side]] for side, known in names.items()} for pair in pairs]


def ids_by_key(image_set: ImageSet, wanted: set[int], cache: Path) -> dict[int, str]:
    """Image ids of sampling keys."""
    found: dict[int, str] = {}
    for shard in image_set.shards():
        images = read_image_list(image_set, shard, cache)
        keys = sampling_keys(images.image_ids)
        for i in np.flatnonzero(np.isin(keys, list(wanted))):
            found[int(keys[i])] = images.image_ids[i]
    return found
