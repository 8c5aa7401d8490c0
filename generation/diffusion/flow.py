"""Sampling along a linear path between noise and data (Ma et al. 2024, SiT, arXiv 2401.08740).

    x_t = t x + (1 - t) eps,    t from 0, noise, to 1, data (as in their code; the paper's is 1 - t)

A network says the velocity v(x, t) = E[x - eps | x_t]. Its flow dx = v dt carries noise to data. So
does any SDE with the same marginals; here, as their code's "sigma" form, with w_t = 1 - t,

    dx = (v + w_t s) dt + sqrt(2 w_t) dW,    score s = (t v - x) / (1 - t)

so that w_t s = t v - x, finite everywhere.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from generation.diffusion.flow_times import LAST_STEP, corrects, ode_steps
from generation.diffusion.sampler_config import FLOW_METHODS, SamplerConfig
from release.errors import UserError

# Called with x float[N,C,H,W] and the time; guidance already applied.
Velocity = Callable[[Tensor, float], Tensor]


def require_flow(config: SamplerConfig) -> None:
    """UserError for settings that have no effect on a flow, and for another method."""
    if config.method not in FLOW_METHODS:
        raise UserError(
            f"a network that says a velocity is sampled by {', '.join(FLOW_METHODS)}, not by "
            f"{config.method}: set the sampler's method"
        )
    if config.threshold != "none":
        raise UserError('a flow has no estimate to clip: its sampler needs threshold = "none"')


@torch.no_grad()
def flow_sample(
    velocity: Velocity, config: SamplerConfig, draw_noise: Callable[[], Tensor]
) -> Tensor:
    """From noise to data, float[N,C,H,W], in `steps` steps: of equal size, or shifted (ode_steps).

    heun-euler ends with a step of Euler's, euler-maruyama with one of LAST_STEP without noise.
    `draw_noise` gives the next standard normal of the batch's shape: the start, then one a step for
    the SDE.
    """
    require_flow(config)
    x = draw_noise()
    if config.method == "euler-maruyama":
        return _stochastic(velocity, x, config.steps, draw_noise)
    for i, (now, then, size) in enumerate(ode_steps(config.steps, config.time_shift)):
        v = velocity(x, now)
        ahead = x + size * v
        if corrects(config.method, i, config.steps):
            ahead = x + size / 2 * (v + velocity(ahead, then))
        x = ahead
    return x


def _stochastic(
    velocity: Velocity, x: Tensor, steps: int, draw_noise: Callable[[], Tensor]
) -> Tensor:
    """One evaluation a step, the last step's included."""
    end = 1 - LAST_STEP
    step = end / max(1, steps - 1)
    for i in range(steps - 1):
        t = i * step
        x = x + step * _drift(velocity, x, t) + sqrt(2 * (1 - t) * step) * draw_noise()
    size = LAST_STEP if steps > 1 else 1.0
    return x + size * _drift(velocity, x, 1 - size)


def _drift(velocity: Velocity, x: Tensor, t: float) -> Tensor:
    """v + w_t s."""
    v = velocity(x, t)
    return v + t * v - x
