"""Every metric by name: the state it reads and the values it gives.

To add one: write its state and value in a file of its own, and an entry here. Cards and leaderboard
read the names of its values from the entry.
"""

from collections.abc import Sequence
from functools import partial

from metrics.features.extractors import Extractor
from metrics.features.mergeable import BUCKETS, Groups
from metrics.scoring.metric import Metric, StateKind, Value, ValueName, Values
from metrics.states.agreement import AgreementCounts, agreement_values, logit_columns
from metrics.states.copies import QUANTILE, copy_values
from metrics.states.diversity import vendi_score
from metrics.states.frechet import (
    IMAGES_PER_DIMENSION,
    GaussianReference,
    Moments,
    StoredMoments,
    bucket_moments,
    extrapolation_refused,
    frechet_bias,
    frechet_infinity,
    images_to_extrapolate,
)
from metrics.states.frechet_ratio import class_ratio_values, ratio_values
from metrics.states.inception_score import ADM_CHUNK, SPLITS, InceptionScoreState, mean_score
from metrics.states.intervals import Estimate, jackknife
from metrics.states.kernel_distance import (
    CMMD_SIGMA,
    KID_BLOCK,
    bucket_unit_moments,
    cmmd,
    kid_blocks,
    kid_with_error,
)
from metrics.states.manifold import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, manifold_scores
from metrics.states.per_class import CLASS_IMAGES, ClassReference, ClassState, class_values
from metrics.states.sample import SAMPLE_IMAGES, Sample
from metrics.states.two_sample import FOLDS, STRENGTH, two_sample_values
from release.classes.class_list import ClassEntry
from release.errors import unknown_name
from release.results.statistics import interval_from_error, student_interval

DEFAULT_METRICS = "fd,is"
PER_CLASS = ("classes", "class_fdr", "agreement")
JACKKNIFE = {"interval": f"jackknife over {BUCKETS} buckets, 95%"}
EXTRAPOLATED = {
    "interval": f"jackknife over {BUCKETS} buckets of both sides, 95%",
    "images_per_dimension": IMAGES_PER_DIMENSION,
}

STATE_KINDS = {
    "moments": StateKind(
        lambda block, _: bucket_moments(block.features, block.keys),
        reference=StoredMoments,
        keep=StoredMoments.of,
        prepare=lambda kept: GaussianReference.from_buckets(kept.buckets),
    ),
    "spatial_moments": StateKind(
        lambda block, _: bucket_moments(block.spatial, block.keys),
        reference=StoredMoments,
        keep=StoredMoments.of,
        prepare=lambda kept: GaussianReference.from_buckets(kept.buckets),
    ),
    "unit_moments": StateKind(
        lambda block, _: bucket_unit_moments(block.features, block.keys), reference=Moments
    ),
    "sample": StateKind(
        lambda block, whole: Sample.of(block.keys, block.features, block.labels, whole.sample),
        reference=Sample,
    ),
    "classes": StateKind(
        lambda block, whole: ClassState.of(
            block.features, block.keys, block.labels, whole.per_class
        ),
        reference=ClassReference,
    ),
    "scores": StateKind(
        lambda block, whole: InceptionScoreState.from_logits(block.logits, block.keys, whole.keys)
    ),
    "agreement": StateKind(
        lambda block, whole: AgreementCounts.from_logits(
            block.logits, block.labels, whole.logit_columns
        )
    ),
}


def frechet_values(images: Groups[Moments], target: GaussianReference, name: str = "fd") -> Values:
    """fd: squared distance, 0 is best; fd_infinity: between infinitely many images of both sides.

    bias: by how much so few images overstate the distance to a reference of their own distribution
    (see frechet_bias). With too few images for the dimensions neither is given: infinity_refused
    says why.
    """
    estimate = jackknife(images, target.distance)
    value = _value(estimate, lower=0.0)
    del value["extrapolated"]  # over one side alone
    if estimate.n >= images_to_extrapolate(len(target.mean)):
        value["bias"] = frechet_bias(images.total, estimate.n)
    if reason := extrapolation_refused(estimate.n, target):
        return {name: value | {"infinity_refused": reason}}
    found = frechet_infinity(images, estimate, target)
    infinity = {
        "value": found.value,
        "n": found.n,
        "interval": found.interval,
        "settings": EXTRAPOLATED,
    }
    return {name: value, f"{name}_infinity": infinity}


def inception_score_values(images: InceptionScoreState) -> Values:
    """inception_score over all images together; mean and std of splits; the ADM evaluator's."""
    estimate = jackknife(images.buckets, lambda sums: sums.value)
    whole = _value(estimate, lower=1.0)
    values = {"inception_score": whole}
    for name, groups in (("splits", images.splits), ("adm", images.chunks)):
        mean, std = mean_score(groups)
        g = len(groups.by_key)
        values[f"inception_score_{name}"] = {
            "value": mean,
            "n": estimate.n,
            "std": std,
            # of the mean of g groups; one group is the whole set
            "interval": interval_from_error(mean, std / (g - 1) ** 0.5, g)
            if g > 1
            else whole["interval"],
        }
    return values


def kid_values(images: Sample, reference: Sample) -> Values:
    """kid: mean over blocks of a sample of both sets, 0 is best, unbiased."""
    n = min(images.n, reference.n)
    blocks = kid_blocks(images.features, reference.features)
    value, interval = float(blocks.mean()), student_interval(blocks)
    if len(blocks) > 1:
        n = len(blocks) * KID_BLOCK  # whole blocks alone
    else:
        value, error = kid_with_error(images.features[:n], reference.features[:n])
        interval = None if error is None else interval_from_error(value, error, n)
    return {"kid": {"value": value, "n": n, "interval": interval}}


def cmmd_values(images: Groups[Moments], reference: Moments) -> Values:
    """cmmd: 0 is best; the published one is on CLIP features."""
    return {"cmmd": _value(jackknife(images, lambda m: cmmd(m, reference)), lower=0.0)}


def vendi_values(images: Groups[Moments]) -> Values:
    """vendi: the effective number of different images."""
    return {"vendi": _value(jackknife(images, vendi_score), lower=1.0)}


def manifold_values(images: Sample, reference: Sample) -> Values:
    """precision, recall, density, coverage: of samples of both sets."""
    scores = manifold_scores(images.features, reference.features)
    n = min(images.n, reference.n)
    return {
        name: {
            "value": score.value,
            "n": images.n,
            "interval": interval_from_error(score.value, score.error, n) if n > 1 else None,
        }
        for name, score in vars(scores).items()
    }


def _value(estimate: Estimate, lower: float) -> Value:
    interval = estimate.interval and [max(lower, end) for end in estimate.interval]
    return {
        "value": estimate.value,
        "n": estimate.n,
        "interval": interval,
        "extrapolated": estimate.extrapolated,
    }


FDR = {
    "protocol": "fdr",
    "sample": SAMPLE_IMAGES,
    "n": "as many images as held-out ones, by lowest key",
    "labels": "as the sample has them",
}
SAMPLED = {"sample": SAMPLE_IMAGES, "interval": "mean over blocks or images, 95%"}
METRICS = {
    "fd": Metric(
        "moments",
        frechet_values,
        {
            "fd": ValueName("FD", "to", "lower", headline=True),
            "fd_infinity": ValueName("FD\N{INFINITY}", "to", "lower"),
        },
        settings=JACKKNIFE,
    ),
    "fdr": Metric(
        "sample",
        ratio_values,
        {"fdr": ValueName("FDr", "over", "lower")},
        against="held-out",
        beside="moments",
        settings=FDR
        | {"interval": f"jackknife over {BUCKETS} buckets of images and held-out images, 95%"},
    ),
    "class_fdr": Metric(
        "sample",
        class_ratio_values,
        {"class_fdr": ValueName("Class FDr", "over", "lower")},
        against="held-out",
        beside="classes",
        settings=FDR
        | {"images_per_dimension": IMAGES_PER_DIMENSION, "interval": "mean over classes, 95%"},
    ),
    "sfid": Metric(
        "spatial_moments",
        partial(frechet_values, name="sfid"),
        {
            "sfid": ValueName("sFID", "to", "lower"),
            "sfid_infinity": ValueName("sFID\N{INFINITY}", "to", "lower"),
        },
        needs="spatial",
        settings=JACKKNIFE,
    ),
    "kid": Metric(
        "sample",
        kid_values,
        {"kid": ValueName("KID", "to", "lower")},
        settings=SAMPLED | {"block": KID_BLOCK},
    ),
    "cmmd": Metric(
        "unit_moments",
        cmmd_values,
        {"cmmd": ValueName("CMMD", "to", "lower")},
        settings=JACKKNIFE | {"sigma": CMMD_SIGMA},
    ),
    "prdc": Metric(
        "sample",
        manifold_values,
        {
            "precision": ValueName("Precision", "on", "higher", "fraction"),
            "recall": ValueName("Recall", "on", "higher", "fraction"),
            "density": ValueName("Density", "on", "higher"),
            "coverage": ValueName("Coverage", "on", "higher", "fraction"),
        },
        settings=SAMPLED
        | {"neighbours": PRECISION_NEIGHBOURS, "density_neighbours": DENSITY_NEIGHBOURS},
    ),
    "c2st": Metric(
        "sample",
        two_sample_values,
        {"c2st": ValueName("Told apart", "from", "lower", "fraction")},
        settings={
            "protocol": "c2st-logistic",
            "sample": SAMPLE_IMAGES,
            "folds": FOLDS,
            "strength_per_image": STRENGTH,
            "interval": "Wilson, over held-out images of both sets, 95%",
        },
    ),
    "vendi": Metric(
        "unit_moments",
        vendi_values,
        {"vendi": ValueName("Vendi score", better="higher")},
        against="nothing",
        settings=JACKKNIFE,
    ),
    "is": Metric(
        "scores",
        inception_score_values,
        {
            "inception_score": ValueName("Inception-style score", better="higher", headline=True),
            "inception_score_splits": ValueName(
                "Inception-style score, mean of splits", better="higher"
            ),
            "inception_score_adm": ValueName(
                "Inception-style score, ADM's chunks", better="higher"
            ),
        },
        against="nothing",
        needs="logits",
        settings=JACKKNIFE | {"splits": SPLITS, "adm_chunk": ADM_CHUNK},
    ),
    "copies": Metric(
        "sample",
        copy_values,
        {
            "nearest": ValueName("Distance of nearest image", "in"),
            "copies": ValueName("Near copies", "of", "lower", "fraction"),
        },
        against="train",
        settings=SAMPLED | {"quantile": QUANTILE},
    ),
    "agreement": Metric(
        "agreement",
        agreement_values,
        {
            "agreement": ValueName("Label agreement", better="higher", unit="fraction"),
            "agreement_top5": ValueName(
                "Label agreement, first five", better="higher", unit="fraction"
            ),
        },
        against="nothing",
        needs="classes",
    ),
    "classes": Metric(
        "classes",
        class_values,
        {
            "class_kid": ValueName("Class KID", "to", "lower"),
            "class_fd": ValueName("Class FD", "to", "lower"),
        },
        settings={"sample_per_class": CLASS_IMAGES, "interval": "mean over classes, 95%"},
    ),
}


def value_names() -> dict[str, ValueName]:
    """Of every metric, the headline ones first."""
    names = {name: v for metric in METRICS.values() for name, v in metric.names.items()}
    return dict(sorted(names.items(), key=lambda item: not item[1].headline))


NEEDS = {
    "logits": "class logits",
    "spatial": "spatial features (inception-v3)",
    "classes": "logits of this release's classes (classifier@FILE)",
}


def is_possible(metric: Metric, extractor: Extractor, classes: Sequence[ClassEntry]) -> bool:
    """Whether the extractor gives what the metric reads, for a release of these classes."""
    if metric.needs == "classes":
        return logit_columns(extractor.classes, [entry.wnid for entry in classes]) is not None
    return metric.needs is None or getattr(extractor.sample, metric.needs).shape[1] > 0


def parse_metrics(names: str) -> dict[str, Metric]:
    """The metrics of a comma-separated list, or of "all"; raises UserError for an unknown one."""
    if names == "all":
        return dict(METRICS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted or [names]:
        if name not in METRICS:
            raise unknown_name("metric", name, [*METRICS, "all"])
    return {name: METRICS[name] for name in dict.fromkeys(wanted)}


def hoped_metrics(names: str, per_class: bool) -> dict[str, Metric]:
    """Those named, and with `per_class` those within classes; an extractor may lack some."""
    return parse_metrics(names) | {n: METRICS[n] for n in PER_CLASS if per_class}


def choose_metrics(
    names: str, per_class: bool, extractor: Extractor, classes: Sequence[ClassEntry]
) -> dict[str, Metric]:
    """Those named; "all" and `per_class` mean those that this extractor makes possible."""
    hoped = hoped_metrics(names, per_class)
    named = {} if names == "all" else parse_metrics(names)
    return named | {n: m for n, m in hoped.items() if is_possible(m, extractor, classes)}
