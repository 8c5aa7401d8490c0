"""Scores of each class by itself: KID always, Fréchet distance where there are enough images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.features.mergeable import Groups
from metrics.states.frechet import IMAGES_PER_DIMENSION, GaussianReference, Moments, bucket_moments
from metrics.states.intervals import jackknife
from metrics.states.kernel_distance import kid_with_error
from metrics.states.sample import Sample
from release.results.statistics import interval_from_error, student_interval

Row = dict[str, Any]
CLASS_IMAGES = 200  # of each class, for KID: 1.6 GB for 1,000 classes in 2,048 dimensions


@dataclass(frozen=True)
class ClassState:
    """By label: a sample of its images, and moments by jackknife bucket if it has enough of them.

    per_class int64[C]: images of each class in the whole set.
    """

    samples: Groups[Sample]
    moments: Groups[Groups[Moments]]
    per_class: np.ndarray

    @classmethod
    def of(
        cls, features: np.ndarray, keys: np.ndarray, labels: np.ndarray, per_class: np.ndarray
    ) -> "ClassState":
        """Of float[N,D] with sampling keys uint64[N] and labels int64[N]."""
        samples = Groups.of(
            labels, lambda rows: Sample.of(keys[rows], features[rows], labels[rows], CLASS_IMAGES)
        )
        enough = per_class >= images_needed(features.shape[1])
        moments = {
            label: bucket_moments(features[labels == label], keys[labels == label])
            for label in samples.by_key
            if enough[label]
        }
        return cls(samples, Groups(moments), per_class)

    def merge(self, other: "ClassState") -> "ClassState":
        """Of both sets."""
        return ClassState(
            self.samples.merge(other.samples), self.moments.merge(other.moments), self.per_class
        )

    @property
    def n(self) -> int:
        """Images of all classes."""
        return int(self.per_class.sum())

    @property
    def total(self) -> "ClassReference":
        """What to measure against."""
        samples = list(self.samples.by_key.values())
        totals = {label: state.total for label, state in self.moments.by_key.items()}
        return ClassReference(
            per_class=self.per_class,
            labels=np.concatenate([sample.labels for sample in samples]),
            features=np.concatenate([sample.features for sample in samples]),
            fitted=np.array(list(totals), np.int64),
            means=np.array([m.mean for m in totals.values()]),
            covariances=np.array([m.covariance for m in totals.values()]),
        )


@dataclass(frozen=True)
class ClassReference:
    """The real images: per_class int64[C]; the samples' labels int64[N] and features float32[N,D].

    fitted int64[K]: labels of the classes with enough images for a covariance, with their means
    float64[K,D] and covariances float64[K,D,D].
    """

    per_class: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    fitted: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def n(self) -> int:
        """Images of all classes."""
        return int(self.per_class.sum())

    def gaussian(self, label: int) -> GaussianReference | None:
        """None where there are too few images of the class."""
        for i in np.flatnonzero(self.fitted == label):
            return GaussianReference(int(self.per_class[label]), self.means[i], self.covariances[i])
        return None


def images_needed(dimensions: int) -> int:
    """Images a class must have for a covariance in so many dimensions."""
    return IMAGES_PER_DIMENSION * dimensions


def class_values(images: ClassState, reference: ClassReference) -> dict[str, Row]:
    """class_kid: mean over classes of the KID within a class, unbiased, 0 is best.

    Each entry of per_class has its own value, interval (jackknife over the images of both sets)
    and `fd`, or `fd_refused` with the reason. class_fd is the mean of the former, where there are
    any. Intervals of means are over classes. A class needs two images on both sides.
    """
    rows = [
        _class_row(label, sample, images, reference)
        for label, sample in images.samples.by_key.items()
        if min(images.per_class[label], reference.per_class[label]) > 1
    ]
    values = _mean_over_classes("class_kid", rows, rows)
    distances = [{"n": row["n"], **row["fd"]} for row in rows if "fd" in row]
    return values | _mean_over_classes("class_fd", distances, [])


def _class_row(label: int, sample: Sample, images: ClassState, reference: ClassReference) -> Row:
    real = reference.features[reference.labels == label]
    value, error = kid_with_error(sample.features, real)
    sizes = {"n": int(images.per_class[label]), "reference_n": int(reference.per_class[label])}
    n = min(sample.n, len(real))
    interval = None if error is None else interval_from_error(value, error, n)
    row = {"label": label, **sizes, "value": value, "interval": interval}
    target, moments = reference.gaussian(label), images.moments.by_key.get(label)
    if target is None or moments is None:
        dimensions = sample.features.shape[1]
        reason = (
            f"{sizes['n']} images against {sizes['reference_n']}, but {dimensions} dimensions "
            f"need {images_needed(dimensions)} on both sides"
        )
        return row | {"fd_refused": reason}
    estimate = jackknife(moments, target.distance)
    ends = estimate.interval and [max(0.0, end) for end in estimate.interval]
    return row | {"fd": {"value": estimate.value, "interval": ends}}


def _mean_over_classes(name: str, rows: Sequence[Row], shown: Sequence[Row]) -> dict[str, Row]:
    if not rows:
        return {}
    values = np.array([row["value"] for row in rows])
    entry = {
        "value": float(values.mean()),
        "n": sum(row["n"] for row in rows),
        "classes": len(rows),
        "interval": student_interval(values),
    }
    return {name: entry | ({"per_class": list(shown)} if shown else {})}
