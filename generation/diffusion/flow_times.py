"""When a flow's samplers ask their network, apart from the samplers so that it needs no torch."""

from itertools import pairwise

LAST_STEP = 0.04  # of the SDE, without noise, as in SiT's code


def corrects(method: str, step: int, steps: int) -> bool:
    """Whether that step of the ODE asks at its end, too: of heun-euler all but the last one."""
    return method == "heun" or (method == "heun-euler" and step < steps - 1)


def shifted(time: float, shift: float) -> float:
    """Time t as shift t / (1 + (shift - 1) t): a shift below 1 gives noise more of the steps."""
    return shift * time / (1 + (shift - 1) * time)


def ode_steps(steps: int, shift: float | None) -> list[tuple[float, float, float]]:
    """(its time, the next one's, its size) of each; shift: None for steps of equal size."""
    if shift is None:
        step = 1 / steps
        return [(i * step, (i + 1) * step, step) for i in range(steps)]
    times = [shifted(i / steps, shift) for i in range(steps + 1)]
    return [(now, then, then - now) for now, then in pairwise(times)]


def flow_times(method: str, steps: int, shift: float | None = None) -> list[float]:
    """Of each call of the network, from 0, noise, to 1, data."""
    if method == "euler-maruyama":
        step = (1 - LAST_STEP) / max(1, steps - 1)
        return [i * step for i in range(steps - 1)] + [1 - LAST_STEP if steps > 1 else 0.0]
    found = []
    for i, (now, then, _) in enumerate(ode_steps(steps, shift)):
        found += [now, then] if corrects(method, i, steps) else [now]
    return found


def acts_at(interval: tuple[float, float] | None, time: float) -> bool:
    """Whether guidance acts then. interval: shares of noise, 1 - time; None for always."""
    return acts_on(interval, 1 - time)


def acts_on(interval: tuple[float, float] | None, share: float) -> bool:
    """Whether guidance acts at that share of noise."""
    return interval is None or interval[0] <= share <= interval[1]
