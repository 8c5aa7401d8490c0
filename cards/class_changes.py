"""Which classes a training set helps and which it harms, told apart from chance.

Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10:
the difference's interval from the Wilson intervals of both. A class counts as helped or harmed
only if its interval at level 1 - 0.05/K excludes 0, K classes being looked at (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt

from cards.measured import ClassScore

LEVEL = 0.05


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


def class_changes(
    real: Sequence[ClassScore], other: Sequence[ClassScore]
) -> tuple[ClassChange, ...]:
    """One change a class, most harmed first. Classes that only one of the two has are left out.

    Accuracies are means over training runs, n the test images: runs share them, so runs do not
    multiply n.
    """
    baseline = {c.wnid: c for c in real}
    pairs = [(baseline[c.wnid], c) for c in other if c.wnid in baseline]
    changes = [_change(before, after, len(pairs)) for before, after in pairs]
    return tuple(sorted(changes, key=lambda c: (c.difference, c.wnid)))


def _change(before: ClassScore, after: ClassScore, classes: int) -> ClassChange:
    low, high = newcombe_interval(before.top1, before.n, after.top1, after.n, LEVEL)
    strict = newcombe_interval(before.top1, before.n, after.top1, after.n, LEVEL / classes)
    return ClassChange(
        wnid=after.wnid,
        name=after.name,
        n=after.n,
        real=before.top1,
        other=after.top1,
        low=low,
        high=high,
        verdict="helped" if strict[0] > 0 else "harmed" if strict[1] < 0 else "",
    )


def newcombe_interval(
    before: float, before_n: int, after: float, after_n: int, level: float
) -> tuple[float, float]:
    """Interval of after - before at confidence 1 - level; shares of before_n and after_n."""
    low1, high1 = wilson_interval(after, after_n, level)
    low2, high2 = wilson_interval(before, before_n, level)
    difference = after - before
    return (
        difference - sqrt((after - low1) ** 2 + (high2 - before) ** 2),
        difference + sqrt((high1 - after) ** 2 + (before - low2) ** 2),
    )


def wilson_interval(share: float, n: int, level: float) -> tuple[float, float]:
    """(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), Wilson 1927."""
    z = _two_sided_quantile(level)
    centre = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


@cache
def _two_sided_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - level / 2))
