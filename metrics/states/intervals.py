"""Error bars by the delete-one-bucket jackknife, for any value of a mergeable state."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from metrics.features.mergeable import BUCKETS, Groups, State
from release.results.statistics import interval_from_error

S = TypeVar("S", bound=State)
MINIMUM = 2 * BUCKETS  # with fewer, leaving out a bucket leaves too little


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95% interval (None with fewer than MINIMUM images).

    extrapolated: the value for infinitely many images if its bias falls as 1/n, which is what
    Chong & Forsyth (2020) fit for FID and IS; here through n and the sets less one bucket.
    groups: independent parts behind the error.
    """

    value: float
    n: int
    interval: tuple[float, float] | None = None
    extrapolated: float | None = None
    error: float = 0.0
    groups: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A value of n images, and without each jackknife bucket of them.

    counts int64[g]: images of each bucket; others float64[g]: the value without it. g = 0: too few
    images to leave any out.
    """

    value: float
    n: int
    counts: np.ndarray
    others: np.ndarray

    @classmethod
    def of(cls, buckets: Groups[S], value_of: Callable[[S], float]) -> "LeftOut":
        """By leaving out each bucket."""
        total = buckets.total
        if len(buckets.by_key) < 2 or total.n < MINIMUM:
            return cls(value_of(total), total.n, np.zeros(0, np.int64), np.zeros(0))

        def value_less(key: int | None) -> float:
            return value_of(total if key is None else buckets.without(key))

        value, *others = _side_by_side(value_less, [None, *buckets.by_key])
        counts = np.array([state.n for state in buckets.by_key.values()])
        return cls(value, total.n, counts, np.array(others))

    def estimate(self) -> Estimate:
        """The delete-m_j jackknife of the value (Busing et al. 1999)."""
        g, n, value = len(self.counts), self.n, self.value
        if not g:
            return Estimate(value, n)
        h = n / self.counts
        extrapolated = g * value - float(((1 - 1 / h) * self.others).sum())
        pseudo = h * value - (h - 1) * self.others
        error = float(((pseudo - extrapolated) ** 2 / (h - 1)).mean()) ** 0.5
        low, high = interval_from_error(value, error, g)
        return Estimate(value, n, (low, high), extrapolated, error, g)


def jackknife(buckets: Groups[S], value_of: Callable[[S], float]) -> Estimate:
    """The value of all buckets together and its delete-m_j jackknife (Busing et al. 1999).

    θ_J = g·θ - Σ (1 - m_j/n)·θ_-j;  h_j = n/m_j;  θ~_j = h_j·θ - (h_j - 1)·θ_-j;
    variance = 1/g · Σ (θ~_j - θ_J)² / (h_j - 1), with g buckets of m_j images. The interval is
    Student's with g - 1 degrees of freedom. It covers the chance in which images were drawn, not
    the chance in the reference.
    """
    return LeftOut.of(buckets, value_of).estimate()


def extrapolate_both(images: Estimate, reference: Estimate) -> Estimate:
    """One distance jackknifed over its images and over its reference, without either's bias.

    The bias of n images against m is a/n + b/m, so each jackknife takes away its part:
    θ + (θ_J of the images - θ) + (θ_J of the reference - θ). The variances add up, so the interval
    covers the chance in which images were drawn on both sides: Student's, with the degrees of
    freedom of the side that has fewer. Both sides must have an interval.
    """
    if images.extrapolated is None or reference.extrapolated is None:
        raise ValueError("too few images to extrapolate from")
    value = images.extrapolated + reference.extrapolated - images.value
    error, groups = np.hypot(images.error, reference.error), min(images.groups, reference.groups)
    low, high = interval_from_error(value, float(error), groups)
    return Estimate(value, images.n, (low, high), value, float(error), groups)


def _side_by_side(
    value_less: Callable[[int | None], float], keys: Sequence[int | None]
) -> list[float]:
    """A core each: eigenvalues hardly gain from a second one, and threads that wait for each other
    on a busy machine take many times as long.
    """
    threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    with _libraries(len(sys.modules)).limit(limits=1), threads as pool:
        return list(pool.map(value_less, keys))


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:  # noqa: ARG001
    """Those with threads, looked for anew when a module was imported since: it takes 8 ms."""
    return ThreadpoolController()
