"""Label agreement: does a reference classifier see in an image the class it was made for?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifiers.training.predictions import TOP
from release.results.statistics import share


@dataclass(frozen=True)
class AgreementCounts:
    """int64[C,3] by label: images, those whose class came first, those with it among five."""

    counts: np.ndarray

    @classmethod
    def from_logits(
        cls, logits: np.ndarray, labels: np.ndarray, columns: np.ndarray | None
    ) -> "AgreementCounts":
        """Of float[N,K] with labels int64[N]; columns int64[C]: the logit of each label."""
        if columns is None:
            raise ValueError("agreement needs to know what the logits stand for")
        own = np.take_along_axis(logits, columns[labels][:, None], axis=1)
        rank = (logits > own).sum(axis=1)  # 0: it came first
        seen = np.stack([np.ones(len(labels), int), rank == 0, rank < TOP], axis=1)
        counts = np.zeros((len(columns), 3), np.int64)
        np.add.at(counts, labels, seen)
        return cls(counts)

    def merge(self, other: "AgreementCounts") -> "AgreementCounts":
        """Of both sets."""
        return AgreementCounts(self.counts + other.counts)

    @property
    def n(self) -> int:
        """Images seen."""
        return int(self.counts[:, 0].sum())


def logit_columns(known: Sequence[str] | None, wanted: Sequence[str]) -> np.ndarray | None:
    """int64[C]: where each class id stands among the `known`; None if one is not there."""
    places = {class_id: i for i, class_id in enumerate(known or ())}
    if not all(class_id in places for class_id in wanted):
        return None
    return np.array([places[class_id] for class_id in wanted])


def agreement_values(state: AgreementCounts) -> dict[str, dict[str, Any]]:
    """agreement: share whose class is the classifier's first; per class too, where it has images.

    agreement_top5 is given for more than five classes.
    """
    n, first, five = state.counts.sum(axis=0)
    values = {"agreement": _share(first, n)}
    if len(state.counts) > TOP:
        values["agreement_top5"] = _share(five, n)
    values["agreement"]["per_class"] = [
        {"label": label, **_share(first, n)}
        for label, (n, first, _) in enumerate(state.counts)
        if n
    ]
    return values


def _share(part: int, n: int) -> dict[str, Any]:
    return share(np.arange(n) < part)
