"""Every metric by name: the state it reads and the values it gives.

To add one: write its state and value in a file of its own, and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from generation.errors import unknown_name
from metrics.diversity import vendi_score
from metrics.features import ShardFeatures
from metrics.frechet import GaussianReference, Moments, bucket_moments
from metrics.inception_score import ADM_CHUNK, SPLITS, InceptionScoreState, mean_score
from metrics.intervals import CONFIDENCE, Estimate, jackknife
from metrics.kernel_distance import (
    CMMD_SIGMA,
    KID_BLOCK,
    bucket_unit_moments,
    cmmd,
    kid_blocks,
)
from metrics.manifold import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, manifold_scores
from metrics.sample import SAMPLE_IMAGES, Sample
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
    "unit_moments": StateFamily(
        lambda shard, _: bucket_unit_moments(shard.features, shard.keys), reference=Moments
    ),
    "sample": StateFamily(
        lambda shard, _: Sample.of(shard.keys, shard.features, shard.images.labels),
        reference=Sample,
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


def kid_values(images: Sample, reference: Sample) -> Values:
    """kid: mean over blocks of a sample of both sets, 0 is best, unbiased."""
    blocks = kid_blocks(images.features, reference.features)
    n = min(images.n, reference.n)
    interval = _mean_interval(blocks) if len(blocks) > 1 else None
    return {"kid": {"value": float(blocks.mean()), "n": n, "interval": interval}}


def cmmd_values(images: Groups[Moments], reference: Moments) -> Values:
    """cmmd: 0 is best; the published one is on CLIP features."""
    return {"cmmd": _value(jackknife(images, lambda m: cmmd(m, reference)), lower=0.0)}


def vendi_values(images: Groups[Moments]) -> Values:
    """vendi: the effective number of different images."""
    return {"vendi": _value(jackknife(images, vendi_score), lower=1.0)}


def manifold_values(images: Sample, reference: Sample) -> Values:
    """precision, recall, density, coverage: of samples of both sets."""
    scores = manifold_scores(images.features, reference.features)
    return {
        name: {
            "value": float(per_image.mean()),
            "n": images.n,
            "interval": _mean_interval(per_image) if len(per_image) > 1 else None,
        }
        for name, per_image in vars(scores).items()
    }


def _mean_interval(values: np.ndarray) -> list[float]:
    """Student's 95% interval of the mean of independent values."""
    quantile = student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    half = float(quantile * values.std(ddof=1) / len(values) ** 0.5)
    mean = float(values.mean())
    return [mean - half, mean + half]


def _value(estimate: Estimate, lower: float) -> Value:
    interval = estimate.interval and [max(lower, end) for end in estimate.interval]
    return {
        "value": estimate.value,
        "n": estimate.n,
        "interval": interval,
        "extrapolated": estimate.extrapolated,
    }


SAMPLED = {"sample": SAMPLE_IMAGES, "interval": "mean over blocks or images, 95%"}
METRICS = {
    "fd": Metric("moments", frechet_values, settings=JACKKNIFE),
    "kid": Metric("sample", kid_values, settings=SAMPLED | {"block": KID_BLOCK}),
    "cmmd": Metric("unit_moments", cmmd_values, settings=JACKKNIFE | {"sigma": CMMD_SIGMA}),
    "prdc": Metric(
        "sample",
        manifold_values,
        settings=SAMPLED
        | {"neighbours": PRECISION_NEIGHBOURS, "density_neighbours": DENSITY_NEIGHBOURS},
    ),
    "vendi": Metric("unit_moments", vendi_values, against_reference=False, settings=JACKKNIFE),
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
