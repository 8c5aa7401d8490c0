"""Autoguidance where the answer is known: two Gaussians, and samplers written here in float64."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.diffusion.edm import edm_sample
from generation.diffusion.edm_levels import flow_time
from generation.diffusion.flow import flow_sample
from generation.diffusion.flow_times import acts_at
from generation.diffusion.guidance import autoguided
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.diffusion.steps import sampling_steps

DEVIATIONS = (0.5, 0.8)  # of what the network learned, and its guide, which blurs it; mean 0
WEIGHT = 1.7
SCHEDULE = NoiseSchedule(ScheduleConfig(name="linear"))
NOISE = torch.randn(4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def shrinking(deviation: float, signal: float, noise: float) -> float:
    """E[x0 | x] / x where x = signal x0 + noise eps."""
    return signal * deviation**2 / (signal**2 * deviation**2 + noise**2)


def predictor(deviation: float) -> Callable[[Tensor, int], tuple[Tensor, None]]:
    """A perfect network that says v."""

    def say(x: Tensor, t: int) -> tuple[Tensor, None]:
        abar = float(SCHEDULE.alphas_cumprod[t])
        signal, noise = sqrt(abar), sqrt(1 - abar)
        x0 = shrinking(deviation, signal, noise) * x
        return signal * (x - signal * x0) / noise - noise * x0, None

    return say


def velocity(deviation: float) -> Callable[[Tensor, float], tuple[Tensor, None]]:
    """A perfect flow: x_t = t x0 + (1 - t) eps, v = E[x0 - eps | x_t]."""

    def say(x: Tensor, t: float) -> tuple[Tensor, None]:
        x0 = shrinking(deviation, t, 1 - t) * x
        return (x0 - (x - t * x0) / (1 - t) if t < 1 else x0), None

    return say


def known_scale(largest: float) -> float:
    """What the guided ODE multiplies x / signal by, from noise / signal = `largest` to 0.

    d ln x / d sigma = sum of c_i sigma / (s_i^2 + sigma^2), c the weights w and 1 - w.
    """
    weights = (WEIGHT, 1 - WEIGHT)
    powers = [
        (s**2 / (s**2 + largest**2)) ** (c / 2) for s, c in zip(DEVIATIONS, weights, strict=True)
    ]
    return float(np.prod(powers))


def reference_ddim(steps: list[int]) -> np.ndarray:
    """Both networks' x0, combined, and Song et al. 2021, eq. 12."""
    x = NOISE.numpy()
    table = [float(SCHEDULE.alphas_cumprod[t]) for t in steps] + [1.0]
    for now, after in pairwise(table):
        strong, weak = (shrinking(s, now**0.5, (1 - now) ** 0.5) * x for s in DEVIATIONS)
        x0 = weak + WEIGHT * (strong - weak)
        x = after**0.5 * x0 + (1 - after) ** 0.5 * (x - now**0.5 * x0) / (1 - now) ** 0.5
    return x


@pytest.mark.parametrize(
    ("method", "steps", "near"), [("ddim", 999, 2e-2), ("dpm-solver++", 200, 2e-2)]
)
def test_a_guided_gaussian_has_the_known_scale(method: str, steps: int, near: float) -> None:
    config = SamplerConfig(method=method, steps=steps, guidance=WEIGHT, threshold="none")
    denoise = autoguided(*map(predictor, DEVIATIONS), WEIGHT)
    x = sample(denoise, SCHEDULE, "v", config, lambda: NOISE).numpy()
    if method == "ddim":
        wanted = reference_ddim(sampling_steps(SCHEDULE, config))
        np.testing.assert_allclose(x, wanted, rtol=1e-9)
    abar = float(SCHEDULE.alphas_cumprod[-1])
    known = NOISE.numpy() / sqrt(abar) * known_scale(sqrt((1 - abar) / abar))
    np.testing.assert_allclose(x, known, rtol=near)
    unguided = predictor(DEVIATIONS[0])
    alone = sample(unguided, SCHEDULE, "v", config, lambda: NOISE).numpy()
    assert np.abs(x).mean() < 0.8 * np.abs(alone).mean()  # away from the blurred one


def test_a_flow_is_guided_within_its_interval_alone() -> None:
    config = SamplerConfig(
        method="heun", steps=40, guidance=WEIGHT, threshold="none", guidance_interval=(0.2, 0.6)
    )
    asked: list[float] = []

    def guide(x: Tensor, t: float) -> tuple[Tensor, None]:
        asked.append(1 - t)
        return velocity(DEVIATIONS[1])(x, t)

    acts = partial(acts_at, config.guidance_interval)
    say = autoguided(velocity(DEVIATIONS[0]), guide, WEIGHT, acts)
    x = flow_sample(lambda x, t: say(x, t)[0], config, lambda: NOISE).numpy()
    assert len(asked) == config.guiding_evaluations
    assert config.own_evaluations == 80
    assert 0.2 <= min(asked) < max(asked) <= 0.6
    np.testing.assert_allclose(x, NOISE.numpy() * _heun_factor(config.steps), rtol=1e-9)


def _heun_factor(steps: int) -> float:
    """Of x, from t = 0 to 1: both networks are linear."""

    def slope(t: float) -> float:
        found = []
        for s in DEVIATIONS:
            share = shrinking(s, t, 1 - t)
            found.append(share - (1 - t * share) / (1 - t) if t < 1 else share)
        strong, weak = found
        return weak + WEIGHT * (strong - weak) if 0.2 <= 1 - t <= 0.6 else strong

    factor = 1.0
    for i in range(steps):
        t, after, h = i / steps, (i + 1) / steps, 1 / steps
        ahead = 1 + h * slope(t)
        factor *= 1 + h / 2 * (slope(t) + slope(after) * ahead)
    return factor


def test_weight_one_is_the_network_alone_and_its_variance_is_kept() -> None:
    def strong(x: Tensor, _: int) -> tuple[Tensor, Tensor]:
        return x + 1, x * 0 + 5

    said, v = autoguided(strong, predictor(0.8), 1.0)(NOISE, 3)
    torch.testing.assert_close(said, NOISE + 1)
    assert v is not None
    assert bool((v == 5).all())


@pytest.mark.parametrize("interval", [None, (0.2, 0.7)])
def test_edms_steps_are_heuns_and_end_at_the_known_scale(
    interval: tuple[float, float] | None,
) -> None:
    """Against Heun's method written out, and without an interval the ODE's own answer."""
    config = SamplerConfig(
        method="edm", steps=40, guidance=WEIGHT, threshold="none", guidance_interval=interval
    )
    asked: list[float] = []

    def denoiser(deviation: float) -> Callable[[Tensor, float], tuple[Tensor, None]]:
        return lambda x, t: (shrinking(deviation, 1.0, t) * x, None)

    def guide(x: Tensor, t: float) -> tuple[Tensor, None]:
        asked.append(t)
        return denoiser(DEVIATIONS[1])(x, t)

    say = autoguided(
        denoiser(DEVIATIONS[0]), guide, WEIGHT, lambda sigma: acts_at(interval, flow_time(sigma))
    )
    x = edm_sample(lambda x, t: say(x, t)[0], config.steps, NOISE).numpy()
    assert len(asked) == config.guiding_evaluations
    assert config.own_evaluations == 79
    if interval is None:
        np.testing.assert_allclose(x, NOISE.numpy() * 80 * known_scale(80.0), rtol=2e-2)
    else:
        assert all(0.2 <= sigma / (1 + sigma) <= 0.7 for sigma in asked)
    np.testing.assert_allclose(x, NOISE.numpy() * _edm_factor(config), rtol=1e-9)


def _edm_factor(config: SamplerConfig) -> float:
    """Of the noise: equation 5's levels, algorithm 1; both networks are linear."""
    ends = [s ** (1 / 7) for s in (80.0, 0.002)]
    levels = [(ends[0] + i / 39 * (ends[1] - ends[0])) ** 7 for i in range(40)] + [0.0]
    low, high = config.guidance_interval or (0.0, 1.0)

    def slope(sigma: float) -> float:
        strong, weak = (shrinking(s, 1.0, sigma) for s in DEVIATIONS)
        acts = low <= sigma / (1 + sigma) <= high
        return (1 - (weak + WEIGHT * (strong - weak) if acts else strong)) / sigma

    factor = levels[0]
    for now, after in pairwise(levels):
        first = slope(now)
        ahead = 1 + (after - now) * first
        second = slope(after) * ahead if after else first
        factor *= 1 + (after - now) * (first + second) / 2
    return factor
