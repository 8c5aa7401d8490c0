"""A training set against real images alone: which run it is compared with, and how it fares.

Runs with the same classifier seeds are paired; the intervals are over those seeds.
"""

from collections.abc import Sequence

import numpy as np

from cards.measured.rankings import Ranking, Score, Training
from classifiers.training.result_values import Source
from release.results.statistics import LEVEL, paired_p, student_interval

Ends = tuple[float, float]


def baseline_of(ranking: Ranking[Training], row: Training) -> Training | None:
    """The real-only run of the same recipe that `row` is to be compared with, if there is one.

    For generated images: as many real ones, else the largest real set. For real images with
    generated ones added: the same real images alone, since any others would say nothing of what
    the generated ones add. Real images that an epoch visits more than once are a control, not a
    baseline.
    """
    real = [r for r in ranking.rows if r.arm == "real" and all(s.weight == 1 for s in r.sources)]
    if row.arm == "real + generated":
        return next((r for r in real if _contents(r.sources) == _contents(_real(row))), None)
    same = [other for other in real if other.images == row.images]
    return next(iter(same), max(real, key=lambda other: other.images, default=None))


def _real(row: Training) -> list[Source]:
    return [source for source in row.sources if source.kind == "real"]


def _contents(sources: Sequence[Source]) -> set[Source]:
    """Which images, however often an epoch visits them."""
    return {source.model_copy(update={"weight": 1.0}) for source in sources}


def ratio_to(real: Score, ours: Score) -> tuple[float, Ends | None] | None:
    """Ours over the real-only score, and its 95% interval over shared seeds (Student's, paired).

    None where that says nothing: the real score's own interval touches 0, or the ratio's does.
    """
    paired = _paired(ours, real)
    if real.mean <= 0 or _touches_zero(_ends(real)):
        return None
    if paired is None:
        return ours.mean / real.mean, None
    if (paired[1] <= 0).any() or _touches_zero(_student(paired[1])):
        return None
    interval = _student(paired[0] / paired[1])
    return None if interval[0] < 0 else (ours.mean / real.mean, interval)


def _touches_zero(ends: Ends) -> bool:
    """Of an interval that is known; of one run alone nothing is."""
    return bool(np.isfinite(ends[0])) and ends[0] <= 0


def verdict(real: Score, ours: Score) -> str:
    """ "better", "worse" or "no clear difference" (95%).

    By the t test of the runs that share their seeds, where there are two or more; else where the
    intervals of both lie apart, which asks for more: of a single run that over test images, of
    several that over seeds. One run without an interval is no evidence.
    """
    paired = _paired(ours, real)
    if paired is not None:
        gains = paired[0] - paired[1]
        p = paired_p(gains, ours.n or 1)
        low = high = gains.mean() if p is not None and p <= LEVEL else 0.0
    else:
        (own_low, own_high), (real_low, real_high) = _ends(ours), _ends(real)
        low, high = own_low - real_high, own_high - real_low
    return "better" if low > 0 else "worse" if high < 0 else "no clear difference"


def _paired(ours: Score, real: Score) -> tuple[np.ndarray, np.ndarray] | None:
    """The values of both for the seeds that both have; None for fewer than two."""
    shared = sorted(ours.by_seeds.keys() & real.by_seeds.keys())
    if len(shared) < 2:
        return None
    mine, theirs = (np.array([score.by_seeds[key] for key in shared]) for score in (ours, real))
    return mine, theirs


def _ends(score: Score) -> Ends:
    """The 95% interval: of a single run over test images, of several over seeds."""
    if score.interval is not None:
        return score.interval
    return _student(np.array(list(score.by_seeds.values())))


def _student(values: np.ndarray) -> Ends:
    """Student's 95% interval of their mean; of one value alone nothing is known."""
    low, high = student_interval(values) or (-np.inf, np.inf)
    return low, high
