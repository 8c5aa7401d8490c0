"""A downstream set: the parts of a real release, and their features under one network."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from metrics.features.extractors import Extractor
from metrics.features.image_lists import ImageSet, open_image_set
from metrics.features.release_features import iterate_features
from release.errors import UserError
from release.files.storage import release_path, split_release
from release.layout.manifest import read_manifest

HELD_OUT = ("test", "validation")  # the first that a release has is tested on


@dataclass(frozen=True)
class Labelled:
    """features float32[N,D]; labels int64[N]."""

    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Labelled":
        """Those rows."""
        return Labelled(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class Downstream:
    """The features of a set's parts. train is fit and tuning together."""

    classes: int
    fit: Labelled
    tuning: Labelled
    test: Labelled

    @cached_property
    def train(self) -> Labelled:
        return Labelled(
            np.concatenate([self.fit.features, self.tuning.features]),
            np.concatenate([self.fit.labels, self.tuning.labels]),
        )


@dataclass(frozen=True)
class DownstreamSet:
    """The images of its parts, before any features are there."""

    train: ImageSet
    test: ImageSet

    @property
    def label(self) -> str:
        """DATASET-CONFIG: part of the names of result files."""
        return f"{self.train.manifest.dataset}-{self.train.config}"

    def train_images(self, cache: Path) -> int:
        """How many train has."""
        return self.train.count(cache)

    def fewest(self, cache: Path) -> tuple[int, str]:
        """Images of the class that has fewest in fit, and its id."""
        counts = self.train.with_split("fit").count_per_class(cache)
        label = int(counts.argmin())
        return int(counts[label]), self.train.manifest.classes[label].wnid

    def features(self, extractor: Extractor, cache: Path) -> Downstream:
        """Of all parts, in plan order; those in the cache are not computed again."""
        fit, tuning = (
            _labelled(self.train.with_split(part), extractor, cache) for part in ("fit", "tuning")
        )
        test = _labelled(self.test, extractor, cache)
        return Downstream(len(self.train.manifest.classes), fit, tuning, test)


def open_downstream(text: str) -> DownstreamSet:
    """RELEASE:CONFIG or RELEASE:CONFIG:TESTSPLIT; UserError for what could not be measured on."""
    name, parts = split_release(text)
    if len(parts) not in (1, 2) or not all((name, *parts)):
        raise UserError(f"--on {text!r}: give RELEASE:CONFIG, such as releases/digits:32")
    path = release_path(name)
    manifest = read_manifest(path)
    if manifest.kind != "real":
        raise UserError(f"--on {name} is not real: accuracy is measured on real images")
    known = manifest.splits().get(parts[0], ["train", *HELD_OUT])
    held_out = next((split for split in HELD_OUT if split in known), HELD_OUT[0])
    split = parts[1] if len(parts) > 1 else held_out
    if split in ("train", "fit", "tuning"):
        raise UserError(f"--on {text}: a probe learns from {split}; name a split that is held out")
    return DownstreamSet(
        open_image_set(path, parts[0], "train"), open_image_set(path, parts[0], split)
    )


def _labelled(image_set: ImageSet, extractor: Extractor, cache: Path) -> Labelled:
    blocks = list(iterate_features(image_set, extractor, cache))
    if not blocks:
        raise UserError(f"{image_set.label} holds no images")
    return Labelled(
        np.concatenate([block.features for block in blocks]),
        np.concatenate([block.labels for block in blocks]),
    )
