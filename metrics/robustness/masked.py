"""Predictions among the classes of a set: of a network's logits only theirs are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from metrics.features.extractors import Extractor
from metrics.features.image_lists import ImageSet
from metrics.features.release_features import iterate_features, iterate_pixels
from metrics.robustness.corruption import Corruption
from metrics.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from release.errors import UserError


@dataclass(frozen=True)
class Masked:
    """One image set under one network. columns int64[C]: the logit of each of the set's classes.

    corruptions: those that are known, by name.
    """

    image_set: ImageSet
    extractor: Extractor
    cache: Path
    columns: np.ndarray
    corruptions: Mapping[str, Corruption] = field(default_factory=lambda: CORRUPTIONS)

    @classmethod
    def of(cls, image_set: ImageSet, extractor: Extractor, cache: Path) -> "Masked":
        """UserError if the network does not know all of the set's classes."""
        wnids = [entry.wnid for entry in image_set.manifest.classes]
        columns = class_columns(extractor.classes, wnids, extractor.protocol.extractor)
        return cls(image_set, extractor, cache, columns)

    def correct(self) -> tuple[np.ndarray, np.ndarray]:
        """bool[N]: which images are right; int64[N]: their labels. In plan order."""
        blocks = list(iterate_features(self.image_set, self.extractor, self.cache))
        labels = np.concatenate([block.labels for block in blocks])
        found = [predicted(block.logits, self.columns) for block in blocks]
        return np.concatenate(found) == labels, labels

    def predicted(self) -> np.ndarray:
        """int64[N]: labels of the set, in plan order."""
        blocks = iterate_features(self.image_set, self.extractor, self.cache)
        return np.concatenate([predicted(block.logits, self.columns) for block in blocks])

    def corrupted(self, name: str) -> np.ndarray:
        """bool[5,N]: which images are right at each severity."""
        parts = []
        for images in iterate_pixels(self.image_set, self.cache, self.extractor.batch):
            right = []
            for severity in SEVERITIES:
                pixels = [
                    corrupt(image, name, severity, key, self.corruptions)
                    for image, key in zip(images.pixels, images.keys.tolist(), strict=True)
                ]
                logits = self.extractor.extract(np.stack(pixels)).logits
                right.append(predicted(logits, self.columns) == images.labels)
            parts.append(np.stack(right))
        return np.concatenate(parts, axis=1)


def predicted(logits: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """int64[N]: place among `columns` of the largest of these logits; the others are masked."""
    return np.asarray(logits[:, columns].argmax(axis=1))


def class_columns(known: Sequence[str] | None, wanted: Sequence[str], name: str) -> np.ndarray:
    """int64[C]: places of the wanted classes among those that a network knows, by wnid."""
    if not known:
        raise UserError(f"{name} has no logits of known classes, so it has no accuracy")
    places = {wnid: place for place, wnid in enumerate(known)}
    for wnid in wanted:
        if wnid not in places:
            raise UserError(
                f"{name} does not know class {wnid!r}; a test set's classes must be among those "
                "that it was trained on"
            )
    return np.array([places[wnid] for wnid in wanted], np.int64)
