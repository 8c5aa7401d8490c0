"""Intervals and tests: the one place where values get their 95% interval or their p.

scipy and statsmodels are imported where first needed: that takes a second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
LEVEL = 0.05  # of a test alone; of many at once their false discovery rate
RESAMPLES = 2000  # of a bootstrap
FEW_PAIRS = 8  # whose orders are all looked at


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


def share(true: np.ndarray) -> dict[str, Any]:
    """Share of True in bool[N], N, and its 95% interval (Wilson 1927)."""
    value, n = float(true.mean()), len(true)
    return {"value": value, "n": n, "interval": wilson_interval(value, n)}


def wilson_interval(value: float, n: int) -> list[float]:
    """Wilson's 95% interval of one share of n."""
    low, high = wilson(np.array([value]), np.array([n]))
    return [float(low[0]), float(high[0])]


def student_interval(values: np.ndarray, n: int | None = None) -> list[float] | None:
    """Student's 95% interval of the mean of independent values; None for fewer than two.

    n: where they are differences of accuracies on n images, which are rounded.
    """
    if len(values) < 2:
        return None
    error = (_variance(values, n) / len(values)) ** 0.5
    return interval_from_error(float(values.mean()), error, len(values))


def _variance(values: np.ndarray, n: int | None) -> float:
    """Of differences of accuracies on n images at least that of two rounded numbers: these are
    multiples of 1/n, so some seeds' are alike by rounding alone."""
    rounded = 0.0 if n is None else 1 / (6 * n * n)
    return max(float(values.var(ddof=1)), rounded)


def interval_from_error(value: float, error: float, n: int) -> list[float]:
    """Student's 95% interval of a value with its standard error from n independent parts."""
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return [value - half, value + half]


def bootstrap_interval(values: np.ndarray) -> list[float]:
    """Percentile bootstrap's 95% interval of the mean of values that are drawn anew."""
    from scipy.stats import bootstrap

    if values.std() == 0:
        return [float(values.mean())] * 2
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def paired_p(differences: np.ndarray, n: int) -> float | None:
    """Of the two-sided t test that their mean is 0; None for fewer than two.

    differences: of accuracies on n images.
    """
    from scipy.stats import t

    seeds = len(differences)
    if seeds < 2:
        return None
    error = (_variance(differences, n) / seeds) ** 0.5
    return 2 * float(t.sf(abs(differences.mean()) / error, seeds - 1))


def mcnemar_p(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """McNemar's exact test, int64[K] each: of the images that changed, half were gained by chance.

    At once for many classes, which statsmodels' and scipy's tests, of one pair a call, are not.
    """
    from scipy.stats import binom

    fewer, changed = np.minimum(gained, lost), gained + lost
    tails = binom.cdf(fewer, changed, 0.5) + binom.sf(changed - fewer - 1, changed, 0.5)
    return np.asarray(np.minimum(tails, 1.0))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Spearman's, its p, and n; None for fewer than three pairs, and where one side is constant.

    Of few pairs p is over all their orders: the usual approximation by Student's t means nothing
    there.
    """
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return {"spearman": None, "p": None, "n": len(first)}
    from scipy.stats import permutation_test, rankdata, spearmanr

    found = spearmanr(first, second)
    p = float(found.pvalue)
    if len(first) <= FEW_PAIRS:
        ranks = rankdata(second) - (len(second) + 1) / 2

        def statistic(x: np.ndarray, axis: int) -> np.ndarray:
            return np.asarray(np.moveaxis(x, axis, -1) @ ranks)

        tested = permutation_test(
            (rankdata(first),), statistic, permutation_type="pairings", n_resamples=np.inf
        )
        p = float(tested.pvalue)
    return {"spearman": float(found.statistic), "p": p, "n": len(first)}


def rank_interval(spearman: float, n: int) -> list[float] | None:
    """95% interval of a Spearman's of n pairs; None for fewer than four, and for a perfect one.

    Fisher's z with the standard error of Bonett & Wright 2000, "Sample size requirements for
    estimating Pearson, Kendall and Spearman correlations".
    """
    from scipy.stats import norm

    if n < 4 or abs(spearman) == 1:
        return None
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * ((1 + spearman**2 / 2) / (n - 3)) ** 0.5
    z = float(np.arctanh(spearman))
    return [float(np.tanh(z - half)), float(np.tanh(z + half))]
