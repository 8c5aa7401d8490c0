"""A uniform sample of a split's images that shards can add up to: those with the lowest keys."""

from dataclasses import dataclass

import numpy as np

SAMPLE_IMAGES = 10_000  # as many as the ADM evaluator's precision and recall read
BLOCK = 1000  # rows copied at a time


@dataclass(frozen=True)
class Sample:
    """The (at most `most`) images with the lowest keys, in the order of their keys.

    keys uint64[N], features float32[N,D], labels int64[N]. The order is random with regard to
    what the images show, so a stretch of it is a random subset.
    """

    keys: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    most: int

    @classmethod
    def of(
        cls, keys: np.ndarray, features: np.ndarray, labels: np.ndarray, most: int = SAMPLE_IMAGES
    ) -> "Sample":
        """Of one block of images."""
        order = np.argsort(keys, kind="stable")[:most]
        return cls(keys[order], features[order], labels[order], most)

    def merge(self, other: "Sample") -> "Sample":
        """Of both sets. The features are copied once and in blocks: they are most of the memory."""
        keys = np.concatenate([self.keys, other.keys])
        labels = np.concatenate([self.labels, other.labels])
        order = np.argsort(keys, kind="stable")[: self.most]
        features = np.empty((len(order), self.features.shape[1]), self.features.dtype)
        for source, first in ((self.features, 0), (other.features, self.n)):
            here = np.flatnonzero((order >= first) & (order < first + len(source)))
            for start in range(0, len(here), BLOCK):
                rows = here[start : start + BLOCK]
                features[rows] = source[order[rows] - first]
        return Sample(keys[order], features, labels[order], self.most)

    @property
    def n(self) -> int:
        """Images in the sample."""
        return len(self.keys)

    @property
    def total(self) -> "Sample":
        """Itself: there are no groups."""
        return self
