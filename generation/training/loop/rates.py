"""What changes with the step: the learning rate, and how much of a running average stays.

A learning rate has a warm-up to its peak, then one of four schedules.

Two rules count the steps. `annealed` reaches the peak at the last step of the warm-up, stays for
one more and would be zero one step after the last. `one_cycle` reaches it at the same step and
falls at once, to more than zero at the last (with "linear" the triangle of Smith 2018); its warm-up
may end between two steps. Trainings of generators use the first, of classifiers the second, each as
it was to the last bit, so that what was trained can be trained again.
"""

import math
from typing import get_args

import numpy as np

from generation.training.config import RateName
from release.errors import unknown_name

RATES = get_args(RateName)


def annealed(schedule: str, peak: float, step: int, steps: int, warmup: int) -> float:
    """At `step` of `steps`, counted from 0; UserError for a schedule that is none of RATES."""
    if schedule == "inverse-square-root":
        return _inverse_square_root(peak, step, warmup)
    rate = peak * min(1.0, (step + 1) / max(1, warmup))
    progress = min(1.0, max(0, step - warmup) / max(1, steps - warmup))
    match schedule:
        case "constant":
            return rate
        case "cosine":
            return rate * 0.5 * (1 + float(np.cos(np.pi * progress)))
        case "linear":
            return rate * (1 - progress)
    raise unknown_name("schedule", schedule, RATES)


def one_cycle(schedule: str, peak: float, step: int, steps: int, warmup: float) -> float:
    """At `step` of `steps`, counted from 0; UserError for a schedule that is none of RATES."""
    if schedule == "inverse-square-root":
        return _inverse_square_root(peak, step, warmup)
    if step + 1 < warmup:
        return peak * (step + 1) / warmup
    left = (steps - step) / (steps + 1 - max(1.0, warmup))  # 1 at the peak, above 0 at the end
    match schedule:
        case "constant":
            return peak
        case "cosine":
            return peak * (0.5 * (1 - math.cos(math.pi * left)))
        case "linear":
            return peak * left
    raise unknown_name("schedule", schedule, RATES)


def _inverse_square_root(peak: float, step: int, warmup: float) -> float:
    """Vaswani et al. 2017, section 5.3, scaled so that the warm-up ends at the peak."""
    warm = max(1.0, warmup)
    return peak * min((step + 1) / warm, math.sqrt(warm / (step + 1)))


def ema_decay_by_count(step: int, decay: float) -> float:
    """(1 + n) / (10 + n) until that is `decay`, as TensorFlow's moving average; n counts from 0."""
    return min(decay, (1 + step) / (10 + step))
