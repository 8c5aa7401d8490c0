"""Inception Score (Salimans et al. 2016), the usual way and the ADM evaluator's."""

from dataclasses import dataclass

import numpy as np

from metrics.features.mergeable import Groups, buckets_of

SPLITS = 10
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
        from scipy.special import log_softmax

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


@dataclass(frozen=True)
class InceptionScoreState:
    """The same images in three groupings.

    buckets: for the score of all images and its jackknife. splits: the image of place i of n in the
    split s with s·n//10 ≤ i < (s+1)·n//10, the usual way. chunks: 5,000 images each, the last one
    short, as the ADM evaluator does. An image's place is that of its sampling key among all: random
    with regard to what it shows, and the same in whichever order the files hold the images.
    """

    buckets: Groups[ScoreSums]
    splits: Groups[ScoreSums]
    chunks: Groups[ScoreSums]

    @classmethod
    def from_logits(
        cls, logits: np.ndarray, keys: np.ndarray, all_keys: np.ndarray
    ) -> "InceptionScoreState":
        """Of float[N,C] with sampling keys uint64[N], among all_keys uint64[n], ascending."""
        n, places = len(all_keys), np.searchsorted(all_keys, keys)
        starts = np.arange(1, SPLITS) * n // SPLITS

        def sums(rows: np.ndarray) -> ScoreSums:
            return ScoreSums.from_logits(logits[rows])

        return cls(
            Groups.of(buckets_of(keys), sums),
            Groups.of(np.searchsorted(starts, places, side="right"), sums),
            Groups.of(places // ADM_CHUNK, sums),
        )

    def merge(self, other: "InceptionScoreState") -> "InceptionScoreState":
        """Of both sets."""
        return InceptionScoreState(
            self.buckets.merge(other.buckets),
            self.splits.merge(other.splits),
            self.chunks.merge(other.chunks),
        )

    @property
    def n(self) -> int:
        """Images seen."""
        return self.buckets.n


def mean_score(groups: Groups[ScoreSums]) -> tuple[float, float]:
    """Mean and standard deviation of the groups' scores."""
    values = [state.value for state in groups.by_key.values()]
    return float(np.mean(values)), float(np.std(values))
