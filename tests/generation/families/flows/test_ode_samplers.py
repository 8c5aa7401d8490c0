"""Steps of unequal size, and Heun's whose last is Euler's, where a Gaussian's flow is known."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.diffusion.flow import flow_sample
from generation.diffusion.flow_times import flow_times
from generation.diffusion.sampler_config import SamplerConfig

MEAN, STD = 0.7, 0.4
NOISE = torch.tensor([-1.7, -0.2, 0.4, 2.3], dtype=torch.float64).view(4, 1, 1, 1)


def velocity(x: Any, t: float) -> Any:
    """E[x1 - eps | x_t] where x_t = t x1 + (1 - t) eps and x1 is N(MEAN, STD^2), exact."""
    variance = (t * STD) ** 2 + (1 - t) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def sampled(method: str, steps: int, shift: float | None) -> Tensor:
    config = SamplerConfig(method=method, steps=steps, time_shift=shift, threshold="none")
    return flow_sample(velocity, config, lambda: NOISE)


def towards_noise(share: float, shift: float) -> float:
    """Zheng et al. 2025, section 4: a share of noise, moved up by `shift`."""
    return shift * share / (1 + (shift - 1) * share)


@pytest.mark.parametrize("shift", [0.3, 1 / 48**0.5, 2.0])
def test_euler_at_shifted_times_is_that_of_a_loop_in_shares_of_noise(shift: float) -> None:
    steps = 9
    shares = [towards_noise(1 - i / steps, 1 / shift) for i in range(steps + 1)]
    x = NOISE.numpy().copy()
    for now, then in pairwise(shares):
        x = x + (now - then) * velocity(x, 1 - now)
    np.testing.assert_allclose(sampled("euler", steps, shift), x, rtol=1e-10)


@pytest.mark.parametrize("shift", [None, 0.5])
def test_heun_with_eulers_last_step_is_that_of_a_loop(shift: float | None) -> None:
    steps = 7
    times = [t * (shift or 1) / (1 + ((shift or 1) - 1) * t) for t in np.linspace(0, 1, steps + 1)]
    x = NOISE.numpy().copy()
    for i, (now, then) in enumerate(pairwise(times)):
        slope = velocity(x, now)
        if i < steps - 1:
            slope = (slope + velocity(x + (then - now) * slope, then)) / 2
        x = x + (then - now) * slope
    np.testing.assert_allclose(sampled("heun-euler", steps, shift), x, rtol=1e-10)


@pytest.mark.parametrize(
    ("method", "shift", "order"),
    [("euler", 0.3, 1), ("heun", 0.3, 2), ("heun-euler", None, 2), ("heun-euler", 0.5, 2)],
)
def test_they_end_where_the_flow_ends(method: str, shift: float | None, order: int) -> None:
    """At MEAN + STD eps; errors fall with the steps as the method's order says."""
    wanted = MEAN + STD * NOISE
    coarse, fine = (
        float((sampled(method, steps, shift) - wanted).abs().max()) for steps in (200, 400)
    )
    assert fine < 1e-2
    assert 2**order * 0.8 < coarse / fine < 2**order * 1.25


@pytest.mark.parametrize("method", ["euler", "heun", "heun-euler"])
def test_evaluations_are_counted_where_they_are_asked(method: str) -> None:
    settings = SamplerConfig(
        method=method,
        steps=10,
        time_shift=0.3,
        guidance=2.0,
        guidance_interval=(0.0, 0.875),
        threshold="none",
    )
    asked: list[float] = []

    def network(x: Tensor, t: float) -> Tensor:
        asked.append(t)
        return x

    flow_sample(network, settings, lambda: NOISE)
    assert asked == flow_times(method, 10, 0.3)
    assert len(asked) == {"euler": 10, "heun": 20, "heun-euler": 19}[method]
    guided = sum(1 - t <= 0.875 for t in asked)
    assert settings.network_evaluations == len(asked) + guided


def test_the_shift_is_left_out_of_the_dump_unless_set_and_is_of_an_ode() -> None:
    plain = SamplerConfig(method="euler", steps=5, threshold="none")
    assert "time_shift" not in plain.model_dump()
    shifted = plain.model_copy(update={"time_shift": 0.3})
    assert SamplerConfig.model_validate(shifted.model_dump()) == shifted
    for method in ("ddpm", "euler-maruyama", "mean-flow"):
        with pytest.raises(ValueError, match="time_shift goes with a method among euler, heun"):
            SamplerConfig.model_validate(shifted.model_dump() | {"method": method})
    with pytest.raises(ValueError, match="greater than 0"):
        SamplerConfig.model_validate(plain.model_dump() | {"time_shift": 0.0})
