"""Every metric by name: the state it reads and the values it gives.

To add one: write its state and value in a file of its own, and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from generation.errors import unknown_name
from metrics.features import ShardFeatures
from metrics.frechet import GaussianReference, Moments, bucket_moments
from metrics.inception_score import ADM_CHUNK, SPLITS, InceptionScoreState, mean_score
from metrics.intervals import Estimate, jackknife
from metrics.states import BUCKETS, Groups

DEFAULT_METRICS = "fd,is"
JACKKNIFE = {"interval": f"jackknife over {BUCKETS} buckets, 95%"}

Value = dict[str, Any]
Values = dict[str, Value]


@dataclass(frozen=True)
class StateFamily:
    """A kind of state that several metrics may read.

    of_shard: state of one shard's features, given the number of images in the whole split.
    reference: type of the state's `total` if metrics measure against it: a dataclass of arrays
    and numbers, kept on disk for the real splits.
    """

    of_shard: Callable[[ShardFeatures, int], Any]
    reference: type | None = None


@dataclass(frozen=True)
class Metric:
    """values: from the state of the images and, if `against_reference`, from the reference's."""

    family: str
    values: Callable[..., Values]
    against_reference: bool = True
    needs_logits: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "moments": StateFamily(
        lambda shard, _: bucket_moments(shard.features, shard.keys), reference=Moments
    ),
    "scores": StateFamily(
        lambda shard, n: InceptionScoreState.from_logits(shard.logits, shard.keys, shard.first, n)
    ),
}


def frechet_values(images: Groups[Moments], reference: Moments) -> Values:
    """fd: squared distance, 0 is best; `extrapolated` is what is known as FD∞."""
    target = GaussianReference.from_moments(reference)
    estimate = jackknife(images, target.distance)
    return {"fd": _value(estimate, lower=0.0)}


def inception_score_values(images: InceptionScoreState) -> Values:
    """inception_score over all images together; mean and std of splits; the ADM evaluator's."""
    estimate = jackknife(images.buckets, lambda sums: sums.value)
    usual, usual_std = mean_score(images.splits)
    adm, adm_std = mean_score(images.chunks)
    return {
        "inception_score": _value(estimate, lower=1.0),
        "inception_score_splits": {"value": usual, "n": estimate.n, "std": usual_std},
        "inception_score_adm": {"value": adm, "n": estimate.n, "std": adm_std},
    }


def _value(estimate: Estimate, lower: float) -> Value:
    interval = estimate.interval and [max(lower, end) for end in estimate.interval]
    return {
        "value": estimate.value,
        "n": estimate.n,
        "interval": interval,
        "extrapolated": estimate.extrapolated,
    }


METRICS = {
    "fd": Metric("moments", frechet_values, settings=JACKKNIFE),
    "is": Metric(
        "scores",
        inception_score_values,
        against_reference=False,
        needs_logits=True,
        settings=JACKKNIFE | {"splits": SPLITS, "adm_chunk": ADM_CHUNK},
    ),
}


def parse_metrics(names: str) -> dict[str, Metric]:
    """The metrics of a comma-separated list, or of "all"; raises UserError for an unknown one."""
    if names == "all":
        return dict(METRICS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted or [names]:
        if name not in METRICS:
            raise unknown_name("metric", name, [*METRICS, "all"])
    return {name: METRICS[name] for name in dict.fromkeys(wanted)}
