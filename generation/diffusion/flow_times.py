"""When a flow's samplers ask their network, apart from the samplers so that it needs no torch."""

LAST_STEP = 0.04  # of the SDE, without noise, as in SiT's code


def flow_times(method: str, steps: int) -> list[float]:
    """Of each call of the network, from 0, noise, to 1, data."""
    if method == "euler-maruyama":
        step = (1 - LAST_STEP) / max(1, steps - 1)
        return [i * step for i in range(steps - 1)] + [1 - LAST_STEP if steps > 1 else 0.0]
    ends = 2 if method == "heun" else 1  # where a step asks: at its start, and at its end
    return [(i + end) / steps for i in range(steps) for end in range(ends)]


def acts_at(interval: tuple[float, float] | None, time: float) -> bool:
    """Whether guidance acts then. interval: shares of noise, 1 - time; None for always."""
    return interval is None or interval[0] <= 1 - time <= interval[1]
