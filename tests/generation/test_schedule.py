"""Noise schedules against the papers' formulas, written here once more, and against diffusers."""

import math

import numpy as np
import pytest
from diffusers import DDPMScheduler
from pydantic import ValidationError

from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig

STEPS = 1000


def table(**settings: object) -> np.ndarray:
    return NoiseSchedule(ScheduleConfig.model_validate(settings)).alphas_cumprod


def log_snr(abar: np.ndarray) -> np.ndarray:
    return np.log(abar / (1 - abar))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_linear_is_the_product_of_ho_et_al() -> None:
    product, expected = 1.0, []
    for t in range(STEPS):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / (STEPS - 1))
        expected.append(product)
    np.testing.assert_allclose(table(name="linear"), expected, rtol=1e-12)


def test_cosine_is_nichol_and_dhariwal_eq_17() -> None:
    def f(t: int) -> float:
        return math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    abar = table(name="cosine")
    np.testing.assert_allclose(abar[:-1], [f(t) / f(0) for t in range(1, STEPS)], rtol=1e-10)
    assert abar[-1] == pytest.approx(abar[-2] * (1 - 0.999), rel=1e-12)  # beta is clipped


@pytest.mark.parametrize("resolution", [16, 32, 64, 256, 1024])
def test_shifted_cosine_is_hoogeboom_et_al_eq_4(resolution: int) -> None:
    times = np.arange(1, STEPS) / STEPS
    expected = -2 * np.log(np.tan(math.pi * times / 2)) + 2 * math.log(64 / resolution)
    abar = table(name="shifted-cosine", resolution=resolution)
    # the table starts from abar = 1, the formula's clipped end: seen in the first steps only
    np.testing.assert_allclose(log_snr(abar[:-1]), expected, atol=1e-3)
    np.testing.assert_allclose(log_snr(abar[99:-1]), expected[99:], atol=1e-6)


@pytest.mark.parametrize(("start", "end", "tau"), [(-3, 3, 1.0), (0, 3, 0.3), (-3, 3, 0.7)])
def test_sigmoid_is_chen_algorithm_1(start: float, end: float, tau: float) -> None:
    v_start, v_end = sigmoid(start / tau), sigmoid(end / tau)
    expected = [
        (v_end - sigmoid((t / STEPS * (end - start) + start) / tau)) / (v_end - v_start)
        for t in range(1, STEPS)
    ]
    abar = table(name="sigmoid", start=start, end=end, tau=tau)
    np.testing.assert_allclose(abar[:-1], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_tables_agree_with_diffusers_to_float32(name: str, theirs: str) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=STEPS, beta_schedule=theirs)
    np.testing.assert_allclose(table(name=name), scheduler.alphas_cumprod.numpy(), rtol=2e-4)


@pytest.mark.parametrize("name", ["linear", "cosine", "shifted-cosine", "sigmoid"])
@pytest.mark.parametrize("steps", [100, 1000, 4000])
def test_every_table_falls_from_image_to_noise(name: str, steps: int) -> None:
    abar = table(name=name, num_steps=steps)
    assert abar.dtype == np.float64
    assert abar.shape == (steps,)
    assert np.all(np.diff(abar) < 0)
    assert abar[0] > 0.99
    assert abar[0] < 1
    assert 0 < abar[-1] < (0.4 if name == "linear" else 1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "sigmoid", "tau": 0.02},  # flat in float64 at both ends
        {"name": "sigmoid", "start": 1.0, "end": 1.0},
        {"name": "linear", "beta_start": 0.0},
        {"name": "linear", "beta_end": 1.0},
        {"name": "exponential"},
        {"num_steps": 1},
        {"tau": 0.0},
        {"input_scale": 1.5},
    ],
)
def test_a_schedule_that_cannot_be_sampled_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScheduleConfig.model_validate(settings)
