"""Which classes a training set helps and which it harms, by the study's rule.

The rule (classifiers/training/class_verdicts.py) asks the seeds and the test images. So it needs
three seeds that both sets have, and the predictions beside their result files. Without them it
names no class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cards.measured.rankings import ClassScore, Training
from classifiers.training.class_verdicts import FEWEST_SEEDS, class_rows
from classifiers.training.outcomes import of_the_same_images, read_outcomes
from release.results.statistics import newcombe

RULE = (
    "A class counts as helped or harmed if McNemar's exact test, paired by test image, and the t "
    "test paired by seed both say so, at a false discovery rate of 5% over all classes; the "
    "intervals are Newcombe's, which ignore the pairing, so a class may be not significant beside "
    "an interval without 0."
)
TOO_FEW = f"No class is named here: both sets need {FEWEST_SEEDS} runs with the same seeds."
NO_PREDICTIONS = "No class is named here: the predictions do not stand beside the result files."

OTHER_IDS = (
    "No class is named here: the predictions are of test images with other ids, so they cannot be "
    "paired."
)


@dataclass(frozen=True)
class ClassChange:
    """real, other, difference: shares in [0, 1]; low, high: 95% interval of the difference.

    verdict: "helped" or "harmed" where that holds over all classes at once, else "".
    """

    wnid: str
    name: str
    n: int
    real: float
    other: float
    low: float
    high: float
    verdict: str

    @property
    def difference(self) -> float:
        return self.other - self.real


def changes_between(real: Training, other: Training) -> tuple[tuple[ClassChange, ...], str]:
    """The classes that both have, most harmed first; why none was tested, "" if all were.

    Accuracies are means over the training runs, n the test images: runs share them, so runs do
    not multiply n.
    """
    verdicts, why_none = _verdicts(real, other)
    baseline = {c.wnid: c for c in real.per_class}
    rows = [
        (c.wnid, c.name, c.n, baseline[c.wnid].top1, c.top1, verdicts.get(c.wnid, ""))
        for c in other.per_class
        if c.wnid in baseline
    ]
    return class_changes(rows), why_none


def class_changes(
    rows: Sequence[tuple[str, str, int, float, float, str]],
) -> tuple[ClassChange, ...]:
    """Of (class id, name, n, real, other, verdict), most harmed first; Newcombe's intervals."""
    if not rows:
        return ()
    n, real, other = (np.array([row[i] for row in rows], float) for i in (2, 3, 4))
    low, high = newcombe(real, other, n, n)
    changes = [
        ClassChange(wnid, name, count, before, after, float(a), float(b), verdict)
        for (wnid, name, count, before, after, verdict), a, b in zip(rows, low, high, strict=True)
    ]
    return tuple(sorted(changes, key=lambda c: (c.difference, c.wnid)))


def _verdicts(real: Training, other: Training) -> tuple[dict[str, str], str]:
    """By class id, of the seeds that both have; or none, and why."""
    ours, theirs = other.predictions, real.predictions
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < FEWEST_SEEDS:
        return {}, TOO_FEW
    wanted = [paths[seeds] for seeds in shared for paths in (ours, theirs)]
    if not all(path.is_file() for path in wanted):
        return {}, NO_PREDICTIONS
    if not of_the_same_images(wanted):  # the same images, imported another way
        return {}, OTHER_IDS
    before, after = (
        read_outcomes({i: paths[seeds] for i, seeds in enumerate(shared)})
        for paths in (theirs, ours)
    )
    rows = class_rows(before, after, _names(before.labels, real.per_class))
    return {row["wnid"]: row["verdict"] for row in rows}, ""


def _names(labels: np.ndarray, classes: Sequence[ClassScore]) -> list[tuple[str, str]]:
    """Id and name by label: a result lists the classes that have test images, in label order."""
    names = [("", "")] * (int(labels.max()) + 1)
    for label, entry in zip(np.unique(labels), classes, strict=True):
        names[label] = (entry.wnid, entry.name)
    return names
