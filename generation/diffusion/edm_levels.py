"""Noise levels of EDM's sampler, apart from it so that they need no torch (Karras et al. 2022)."""

from itertools import pairwise

LEAST, GREATEST, RHO = 0.002, 80.0, 7.0


def edm_levels(steps: int) -> list[float]:
    """sigma at the start of each step, falling; the last step ends at 0 (equation 5)."""
    low, high = LEAST ** (1 / RHO), GREATEST ** (1 / RHO)
    return [(high + i / max(1, steps - 1) * (low - high)) ** RHO for i in range(steps)]


def edm_calls(steps: int) -> list[float]:
    """sigma of each call of the network: two a step, one in the last."""
    levels = edm_levels(steps)
    return [sigma for pair in pairwise(levels) for sigma in pair] + levels[-1:]


def flow_time(sigma: float) -> float:
    """The time on a linear path, from 0, noise, to 1, data, at which noise and data stand so."""
    return 1 / (1 + sigma)
