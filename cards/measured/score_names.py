"""What the values of a "scores" result are called where people read them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from cards.drawing.tables import Column

Unit = Literal["fraction", "number"]


@dataclass(frozen=True)
class ScoreName:
    """A metric's name, the word between it and the split it is measured against, what is better.

    unit: "fraction" of a share of images, else "number".
    """

    label: str
    against: str = ""
    better: str = ""
    unit: Unit = "number"


METRICS = {
    "fd": ScoreName("FD", "to", "lower"),
    "inception_score": ScoreName("Inception-style score", better="higher"),
    "fd_infinity": ScoreName("FD\N{INFINITY}", "to", "lower"),
    "sfid": ScoreName("sFID", "to", "lower"),
    "sfid_infinity": ScoreName("sFID\N{INFINITY}", "to", "lower"),
    "kid": ScoreName("KID", "to", "lower"),
    "cmmd": ScoreName("CMMD", "to", "lower"),
    "precision": ScoreName("Precision", "on", "higher", "fraction"),
    "recall": ScoreName("Recall", "on", "higher", "fraction"),
    "density": ScoreName("Density", "on", "higher"),
    "coverage": ScoreName("Coverage", "on", "higher", "fraction"),
    "vendi": ScoreName("Vendi score", better="higher"),
    "agreement": ScoreName("Label agreement", better="higher", unit="fraction"),
    "agreement_top5": ScoreName("Label agreement, first five", better="higher", unit="fraction"),
    "class_kid": ScoreName("Class KID", "to", "lower"),
    "class_fd": ScoreName("Class FD", "to", "lower"),
    "nearest": ScoreName("Distance of nearest image", "in"),
    "copies": ScoreName("Near copies", "of", "lower", "fraction"),
    "inception_score_splits": ScoreName("Inception-style score, mean of splits", better="higher"),
    "inception_score_adm": ScoreName("Inception-style score, ADM's chunks", better="higher"),
}
SPLITS = ("train", "validation", "test", "tuning")
REFERENCE = "_reference_"  # between a metric and the name of the file it was measured against


def score_column(key: str, stated: str | None = None) -> Column:
    """Of a result's value such as "fd_train". stated: the direction that the result gives."""
    return Column(key, score_name(key), better=score_direction(key, stated))


def score_direction(key: str, stated: str | None = None) -> str:
    """What is better: as the result states it, else as the metric is known; "" if neither."""
    known = METRICS.get(score_split(key)[0])
    return stated or (known.better if known else "")


def score_unit(key: str) -> Unit:
    """Of a metric that is not known a plain number."""
    known = METRICS.get(score_split(key)[0])
    return known.unit if known else "number"


def score_name(key: str) -> str:
    """ "FD to train" for "fd_train"; a name that is not known here as it stands."""
    metric, split = score_split(key)
    if metric not in METRICS:
        return key.replace("_", " ")
    name = METRICS[metric]
    return f"{name.label} {name.against} {split}" if split else name.label


def in_order(keys: Iterable[str]) -> list[str]:
    """By metric as listed here, train before test; unknown ones last."""
    known = list(METRICS)

    def place(key: str) -> tuple[int, str]:
        metric, split = score_split(key)
        place = known.index(metric) if metric in METRICS else len(known)
        return place, "" if split == "train" else split or key

    return sorted(dict.fromkeys(keys), key=place)


def score_split(key: str) -> tuple[str, str | None]:
    """Metric and what it was measured against: one of SPLITS, "reference NAME" or nothing."""
    if key in METRICS:
        return key, None
    metric, between, name = key.partition(REFERENCE)
    if between and metric in METRICS:
        return metric, f"reference {name}"
    metric, _, split = key.rpartition("_")
    return (metric, split) if split in SPLITS and metric else (key, None)


def extractor_name(settings: dict[str, Any]) -> str:
    """Name of the extractor whose features were compared, wherever the protocol holds it."""
    names = [str(v) for key, v in settings.items() if key.endswith(".extractor")]
    return names[0] if names else "features of an unnamed extractor"
