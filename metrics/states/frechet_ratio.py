"""FDr: a Fréchet distance over that of held-out real images (Yang et al. 2026, arXiv:2604.28190).

FDr of one feature space = FD(images, train) / FD(held-out, train); FDr-k is the arithmetic mean
over k spaces. 1 is as near to the training images as real ones that nobody learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.states.frechet import GaussianReference, bucket_moments
from metrics.states.intervals import LeftOut
from metrics.states.per_class import ClassReference, images_needed
from metrics.states.sample import Sample
from release.results.statistics import interval_from_error, student_interval

Row = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """Both distances of one feature space, and each without each jackknife bucket of its images."""

    images: LeftOut
    held_out: LeftOut

    @classmethod
    def of(cls, images: Sample, held_out: Sample, train: GaussianReference) -> "Ratio":
        """Of as many images on both sides, those with the lowest keys: a distance falls with n."""
        n = min(images.n, held_out.n)
        own, other = (
            LeftOut.of(bucket_moments(s.features[:n], s.keys[:n]), train.distance)
            for s in (images, held_out)
        )
        return cls(own, other)

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> "Ratio":
        """As `content` has it in a result."""
        return cls(_read(value["distance"]), _read(value["held_out_distance"]))

    def content(self) -> Row:
        """What a result holds, for a mean over several feature spaces."""
        return {"distance": _written(self.images), "held_out_distance": _written(self.held_out)}


def _written(distance: LeftOut) -> Row:
    return {
        "value": distance.value,
        "n": distance.n,
        "bucket_n": distance.counts.tolist(),
        "without_bucket": distance.others.tolist(),
    }


def _read(content: Mapping[str, Any]) -> LeftOut:
    counts = np.array(content["bucket_n"], np.int64)
    others = np.array(content["without_bucket"], float)
    return LeftOut(content["value"], content["n"], counts, others)


def mean_ratio(spaces: Sequence[Ratio]) -> Row:
    """Mean over feature spaces of the same images: its value, n and interval.

    The jackknife leaves a bucket out of all spaces at once, first of the images, then of the
    held-out ones; variances add up. The chance in the training images is not in it.
    """
    value = float(np.mean([s.images.value / s.held_out.value for s in spaces]))
    n, counts = spaces[0].images.n, (spaces[0].images.counts, spaces[0].held_out.counts)
    numerators = np.mean([s.images.others / s.held_out.value for s in spaces], axis=0)
    denominators = np.mean([s.images.value / s.held_out.others for s in spaces], axis=0)
    sides = [
        LeftOut(value, n, count, others).estimate()
        for count, others in zip(counts, (numerators, denominators), strict=True)
    ]
    found: Row = {"value": value, "n": n, "interval": None}
    if all(side.groups for side in sides):
        error = float(np.hypot(sides[0].error, sides[1].error))
        low, high = interval_from_error(value, error, min(side.groups for side in sides))
        found["interval"] = [max(0.0, low), high]
    return found


def ratio_values(images: Sample, held_out: Sample, train: GaussianReference) -> dict[str, Row]:
    """fdr: below 1 only what is nearer to the training images than held-out ones are.

    labels: how many images of each class, least and most, both sides had: equal ones score lower.
    images_per_dimension: below 5 both distances are mostly the bias of so few images, which draws
    the ratio towards 1. Nothing where held-out images are no distance away.
    """
    ratio = Ratio.of(images, held_out, train)
    if ratio.held_out.value <= 0:
        return {}
    n = ratio.images.n
    labels = {
        "images": _spread(images.labels[:n]),
        "held_out": _spread(held_out.labels[:n]),
    }
    about = {"labels": labels, "images_per_dimension": n / len(train.mean)}
    return {"fdr": {**mean_ratio([ratio]), **about, **ratio.content()}}


def _spread(labels: np.ndarray) -> Row:
    """Least and most images of a class that has any."""
    counts = np.unique(labels, return_counts=True)[1]
    return {"classes": len(counts), "least": int(counts.min()), "most": int(counts.max())}


def class_ratio_values(images: Sample, held_out: Sample, train: ClassReference) -> dict[str, Row]:
    """class_fdr: mean over the classes that have enough images on all sides; per_class: of each.

    Of the same samples; as many images of a class on both sides. refused: how many classes have
    too few. Nothing where all have.
    """
    rows = [
        row for c in range(len(train.per_class)) if (row := _of_class(c, images, held_out, train))
    ]
    if not rows:
        return {}
    values = np.array([row["value"] for row in rows])
    return {
        "class_fdr": {
            "value": float(values.mean()),
            "n": sum(row["n"] for row in rows),
            "classes": len(rows),
            "refused": int((train.per_class > 0).sum()) - len(rows),
            "interval": student_interval(values),
            "per_class": rows,
        }
    }


def _of_class(label: int, images: Sample, held_out: Sample, train: ClassReference) -> Row | None:
    """None with fewer images than a covariance takes."""
    gaussian = train.gaussian(label)
    own, other = (_take(s, label) for s in (images, held_out))
    if gaussian is None or min(own.n, other.n) < images_needed(len(gaussian.mean)):
        return None
    ratio = Ratio.of(own, other, gaussian)
    return {"label": label, **mean_ratio([ratio])} if ratio.held_out.value > 0 else None


def _take(sample: Sample, label: int) -> Sample:
    rows = sample.labels == label
    return Sample(sample.keys[rows], sample.features[rows], sample.labels[rows], sample.most)
