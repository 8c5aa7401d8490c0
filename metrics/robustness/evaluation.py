"""The kind of result that says how robust a classifier is, and its values by name."""

from functools import partial
from typing import Any

import numpy as np

from metrics.evaluation import Evaluation, Step
from metrics.robustness.corruptions import CORRUPTIONS, FROST, SEVERITIES
from metrics.robustness.masked import Masked
from metrics.scoring.metric import ValueName
from release.results.statistics import share, student_interval


def _label(corruption: str) -> str:
    return corruption.replace("_", " ").capitalize().replace("Jpeg", "JPEG")


ROBUSTNESS = Evaluation(
    kind="robustness",
    title="On images unlike those it learned from",
    caption="Top-1 of classifiers among the classes of this set: on its images, on the standard "
    "test images of the same classes, beyond what real-trained classifiers of that standard "
    "accuracy reach, and corrupted as in ImageNet-C (mean of five severities).",
    names={
        "top1": ValueName("Top-1", better="higher", unit="fraction"),
        "standard_top1": ValueName("Standard top-1", better="higher", unit="fraction"),
        "effective_robustness": ValueName("Effective robustness", better="higher", unit="fraction"),
        "real_labels": ValueName("ReaL", better="higher", unit="fraction"),
        **{
            name: ValueName(_label(name), better="higher", unit="fraction")
            for name in (*CORRUPTIONS, FROST)
        },
    },
)
TOP1: dict[str, Any] = {
    "protocol": "top1-masked",
    "among": "the set's classes",
    "interval": "Wilson, over images, 95%",
}
STANDARD = TOP1 | {"protocol": "top1-masked-standard", "images": "of the set's classes"}


def corruption_step(name: str, masked: Masked) -> Step:
    """Mean accuracy over the severities, and that of each."""
    corruption = masked.corruptions[name]
    settings = {
        "protocol": "imagenet-c",
        "corruption": name,
        "constants": [list(c) if isinstance(c, tuple) else c for c in corruption.constants],
        "among": "the set's classes",
        "interval": "Student, over images' means, 95%",
        **corruption.settings,
    }
    return Step(partial(_corrupted, name, masked), settings)


def _corrupted(name: str, masked: Masked) -> dict[str, Any]:
    right = masked.corrupted(name).astype(float)
    by_image = right.mean(axis=0)
    return {
        "value": float(by_image.mean()),
        "n": len(by_image),
        "interval": student_interval(by_image),
        "by_severity": dict(zip(map(str, SEVERITIES), right.mean(axis=1).tolist(), strict=True)),
    }


def top1_step(masked: Masked) -> Step:
    """Accuracy on the set's images."""
    return Step(lambda: share(masked.correct()[0]), TOP1)


def of_classes(standard: Masked, shifted: Masked) -> np.ndarray:
    """bool[N]: which standard images of the shifted set's classes are right among these alone."""
    wnids = [entry.wnid for entry in standard.image_set.manifest.classes]
    wanted = {entry.wnid: label for label, entry in enumerate(shifted.image_set.manifest.classes)}
    theirs = np.array([wanted.get(wnid, -1) for wnid in wnids])
    among = Masked(standard.image_set, standard.extractor, standard.cache, shifted.columns)
    _, labels = standard.correct()
    labels = theirs[labels]
    return np.asarray((among.predicted() == labels)[labels >= 0])
