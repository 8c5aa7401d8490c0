"""What the values of a "scores" result are called where people read them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cards.tables import Column


@dataclass(frozen=True)
class ScoreName:
    """A metric's name, the word between it and the split it is measured against, what is better."""

    label: str
    against: str = ""
    better: str = ""


METRICS = {
    "fd": ScoreName("FD", "to", "lower"),
    "inception_score": ScoreName("Inception-style score", better="higher"),
    "fd_infinity": ScoreName("FD\N{INFINITY}", "to", "lower"),
    "sfid": ScoreName("sFID", "to", "lower"),
    "sfid_infinity": ScoreName("sFID\N{INFINITY}", "to", "lower"),
    "kid": ScoreName("KID", "to", "lower"),
    "cmmd": ScoreName("CMMD", "to", "lower"),
    "precision": ScoreName("Precision", "on", "higher"),
    "recall": ScoreName("Recall", "on", "higher"),
    "density": ScoreName("Density", "on", "higher"),
    "coverage": ScoreName("Coverage", "on", "higher"),
    "vendi": ScoreName("Vendi score", better="higher"),
    "class_kid": ScoreName("Class KID", "to", "lower"),
    "nearest": ScoreName("Distance of nearest image", "in"),
    "inception_score_splits": ScoreName("Inception-style score, mean of splits", better="higher"),
    "inception_score_adm": ScoreName("Inception-style score, ADM's chunks", better="higher"),
}
SPLITS = ("train", "test")


def score_column(key: str) -> Column:
    """Of a result's value such as "fd_train"."""
    metric, _ = _parts(key)
    better = METRICS[metric].better if metric in METRICS else ""
    return Column(key, score_name(key), better=better)


def score_name(key: str) -> str:
    """ "FD to train" for "fd_train"; a name that is not known here as it stands."""
    metric, split = _parts(key)
    if metric not in METRICS:
        return key.replace("_", " ")
    name = METRICS[metric]
    return f"{name.label} {name.against} {split}" if split else name.label


def in_order(keys: Iterable[str]) -> list[str]:
    """By metric as listed here, train before test; unknown ones last."""
    known = list(METRICS)

    def place(key: str) -> tuple[int, str]:
        metric, split = _parts(key)
        place = known.index(metric) if metric in METRICS else len(known)
        return place, "" if split == "train" else split or key

    return sorted(dict.fromkeys(keys), key=place)


def _parts(key: str) -> tuple[str, str]:
    """Metric and split; a key that is a metric itself has no split."""
    metric, _, split = key.rpartition("_")
    return (metric, split) if key not in METRICS and split in SPLITS else (key, "")


def extractor_name(settings: dict[str, Any]) -> str:
    """Name of the extractor whose features were compared, wherever the protocol holds it."""
    names = [str(v) for key, v in settings.items() if key.endswith(".extractor")]
    return names[0] if names else "features of an unnamed extractor"
