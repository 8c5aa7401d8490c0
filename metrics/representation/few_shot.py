"""The linear probe on a few images of each class, drawn several times."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metrics.representation.parts import Downstream
from metrics.representation.probe import SETTINGS as PROBE
from metrics.representation.probe import choose_strength, correct, fit
from release.results.statistics import student_interval

SETTINGS: dict[str, Any] = PROBE | {
    "protocol": "few-shot-lbfgs-45",
    "refitted_on": "the same few images of fit",
    "interval": "Student, over draws, 95%",
}


def settings_of(shots: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Those of draws of so many images."""
    return SETTINGS | {"shots": shots, "seeds": list(seeds)}


def few_shot(
    downstream: Downstream, shots: int, seeds: Sequence[int], device: str = "cpu"
) -> dict[str, Any]:
    """Mean accuracy on the test images over draws of `shots` fit images a class, one a seed."""
    found = np.array([_accuracy(downstream, shots, seed, device) for seed in seeds])
    return {
        "value": float(found.mean()),
        "n": len(downstream.test),
        "interval": student_interval(found),
        "by_seed": {str(seed): float(one) for seed, one in zip(seeds, found, strict=True)},
        "std": float(found.std(ddof=1)) if len(found) > 1 else None,
        "train_n": shots * downstream.classes,
    }


def _accuracy(downstream: Downstream, shots: int, seed: int, device: str) -> float:
    few = downstream.fit.take(draw(downstream.fit.labels, downstream.classes, shots, seed))
    strength, _ = choose_strength(few, downstream.tuning, downstream.classes, device)
    fitted = fit(few, downstream.classes, np.array([strength]), device)
    return float(correct(fitted, downstream.test).mean())


def draw(labels: np.ndarray, classes: int, shots: int, seed: int) -> np.ndarray:
    """Rows of `shots` images of each class."""
    rng = np.random.default_rng([seed, shots])
    rows = [
        rng.choice(np.flatnonzero(labels == label), shots, replace=False)
        for label in range(classes)
    ]
    return np.concatenate(rows)
