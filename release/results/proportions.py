"""Intervals of shares of test images: of one share, and of the difference of two."""

import numpy as np

CONFIDENCE = 0.95


def wilson(
    shares: np.ndarray, counts: np.ndarray, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's intervals of shares in [0, 1] of counts (1927): low and high, one each."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(shares * counts, counts, 1 - confidence, method="wilson")
    return np.asarray(low), np.asarray(high)


def newcombe(
    before: np.ndarray, after: np.ndarray, before_n: np.ndarray, after_n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95% intervals of after - before, shares of before_n and after_n that are independent.

    Newcombe 1998, "Interval estimation for the difference between independent proportions",
    method 10: from the Wilson intervals of both. On the same images it is wider than need be.
    """
    low1, high1 = wilson(after, after_n)
    low2, high2 = wilson(before, before_n)
    difference = after - before
    return (
        difference - np.hypot(after - low1, high2 - before),
        difference + np.hypot(high1 - after, before - low2),
    )
