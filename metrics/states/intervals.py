"""Error bars by the delete-one-bucket jackknife, for any value of a mergeable state."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

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


def jackknife(buckets: Groups[S], value_of: Callable[[S], float]) -> Estimate:
    """The value of all buckets together and its delete-m_j jackknife (Busing et al. 1999).

    θ_J = g·θ - Σ (1 - m_j/n)·θ_-j;  h_j = n/m_j;  θ~_j = h_j·θ - (h_j - 1)·θ_-j;
    variance = 1/g · Σ (θ~_j - θ_J)² / (h_j - 1), with g buckets of m_j images. The interval is
    Student's with g - 1 degrees of freedom. It covers the chance in which images were drawn, not
    the chance in the reference.
    """
    total = buckets.total
    g = len(buckets.by_key)
    if g < 2 or total.n < MINIMUM:
        return Estimate(value_of(total), total.n)

    def value_less(key: int | None) -> float:
        return value_of(total if key is None else buckets.without(key))

    value, *others = _side_by_side(value_less, [None, *buckets.by_key])
    h = total.n / np.array([state.n for state in buckets.by_key.values()])
    extrapolated = g * value - float(((1 - 1 / h) * others).sum())
    pseudo = h * value - (h - 1) * others
    error = float(((pseudo - extrapolated) ** 2 / (h - 1)).mean()) ** 0.5
    low, high = interval_from_error(value, error, g)
    return Estimate(value, total.n, (low, high), extrapolated, error, g)


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
    with threadpool_limits(1), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(value_less, keys))
