"""Inception Score (Salimans et al. 2016), the usual way and the ADM evaluator's."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from metrics.states import buckets_of

ADM_CHUNK = 5000


@dataclass(frozen=True)
class ScoreSums:
    """n, Σp float64[C] and Σ p·log p (nats) of n class distributions."""

    n: int
    total: np.ndarray
    negative_entropy: float

    @classmethod
    def from_logits(cls, logits: np.ndarray) -> "ScoreSums":
        """Of float[N,C]."""
        log_p = log_softmax(logits.astype(np.float64), axis=1)
        p = np.exp(log_p)
        return cls(len(p), p.sum(axis=0), float((p * log_p).sum()))

    def merge(self, other: "ScoreSums") -> "ScoreSums":
        """Of both sets."""
        negative_entropy = self.negative_entropy + other.negative_entropy
        return ScoreSums(self.n + other.n, self.total + other.total, negative_entropy)

    @property
    def value(self) -> float:
        """exp of the mean divergence KL(p(y|x) || p(y)): 1 … C."""
        q = self.total / self.n
        seen = q[q > 0]
        mean_kl = self.negative_entropy / self.n - float((seen * np.log(seen)).sum())
        return float(np.exp(max(mean_kl, 0.0)))


def bucket_scores(logits: np.ndarray, keys: np.ndarray) -> dict[int, ScoreSums]:
    """Sums of float[N,C] by jackknife bucket of their sampling keys uint64[N]."""
    return _group(logits, buckets_of(keys))


def split_scores(logits: np.ndarray, first: int, n: int, splits: int = 10) -> dict[int, ScoreSums]:
    """Sums by split, the usual way: image i of n is in the split s with s·n//splits ≤ i.

    first: position of the first row among the n images.
    """
    starts = np.arange(1, splits) * n // splits
    positions = np.arange(first, first + len(logits))
    return _group(logits, np.searchsorted(starts, positions, side="right"))


def chunk_scores(logits: np.ndarray, first: int, chunk: int = ADM_CHUNK) -> dict[int, ScoreSums]:
    """Sums by chunk of `chunk` images in order, as the ADM evaluator does (its last one is short).

    first: position of the first row among all images.
    """
    return _group(logits, np.arange(first, first + len(logits)) // chunk)


def mean_score(groups: dict[int, ScoreSums]) -> tuple[float, float]:
    """Mean and standard deviation of the groups' scores."""
    values = [groups[key].value for key in sorted(groups)]
    return float(np.mean(values)), float(np.std(values))


def _group(logits: np.ndarray, groups: np.ndarray) -> dict[int, ScoreSums]:
    return {int(g): ScoreSums.from_logits(logits[groups == g]) for g in np.unique(groups)}
