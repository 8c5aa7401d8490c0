"""The sampler against an independent float64 reference, written here from the papers' formulas."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from generation.diffusion.residual import WHOLE_IMAGE, Residual
from generation.diffusion.sampler import Start, apply_threshold, blackened, sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.diffusion.steps import sampling_steps
from release.errors import UserError

SHAPE = (4, 1, 2, 3)
T = 1000
SCHEDULES = {
    "linear": {"name": "linear"},
    "cosine": {"name": "cosine"},
    "shifted-cosine": {"name": "shifted-cosine", "resolution": 256},
    "sigmoid": {"name": "sigmoid", "start": -3, "end": 3, "tau": 1.0, "input_scale": 0.6},
}
METHODS = {
    "ddpm-0": {"method": "ddpm", "gamma": 0.0},
    "ddpm-0.3": {"method": "ddpm", "gamma": 0.3},
    "ddpm-1": {"method": "ddpm", "gamma": 1.0},
    "ddim-0": {"method": "ddim", "eta": 0.0},
    "ddim-0.5": {"method": "ddim", "eta": 0.5},
    "dpm-solver++": {"method": "dpm-solver++"},
}


# ---------------------------------------------------------------- the reference, numpy float64


def reference_table(settings: dict, steps: int) -> list[float]:
    """abar_t, by multiplying up 1 - beta_t from t = 0."""
    name, product, table = settings["name"], 1.0, []

    def sigmoid(value: float) -> float:
        return 1 / (1 + np.exp(-value / settings["tau"]))

    def f(t: int) -> float:
        if name == "cosine":
            return np.cos((t / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        if name == "shifted-cosine":
            c = min(max(np.cos(t / steps * np.pi / 2) ** 2, 1e-9), 1 - 1e-9)
            snr = c / (1 - c) * (64 / settings["resolution"]) ** 2
            return snr / (1 + snr)
        start, end = settings["start"], settings["end"]
        value = sigmoid(t / steps * (end - start) + start)
        return max((sigmoid(end) - value) / (sigmoid(end) - sigmoid(start)), 1e-9)

    for t in range(steps):
        if name == "linear":
            beta = 1e-4 + (0.02 - 1e-4) * t / (steps - 1)
        else:
            beta = min(1 - f(t + 1) / f(t), 0.999)
        product *= 1 - beta
        table.append(product)
    return table


def toy_prediction(x, abar: float, kind: str, scale: float, np_or_torch: ModuleType):
    """What a perfect network of `kind` says where images are one of two kinds.

    Rows 0-1: every pixel is N(0.2, 0.3^2); rows 2-3: -0.5 or 0.7, even odds; both times `scale`.
    """
    signal, noise = abar**0.5 * scale, 1 - abar
    gaussian = 0.2 + 0.09 * signal / (signal**2 * 0.09 + noise) * (x[:2] - signal * 0.2)
    two_points = 0.1 + 0.6 * np_or_torch.tanh(signal * 0.6 / noise * (x[2:] - signal * 0.1))
    x0 = np_or_torch.concatenate([gaussian, two_points]) * scale
    eps = (x - abar**0.5 * x0) / noise**0.5
    return {"x0": x0, "epsilon": eps, "v": abar**0.5 * eps - noise**0.5 * x0}[kind]


def reference_sample(
    table: list[float],
    steps: list[int],
    config: SamplerConfig,
    kind: str,
    scale: float,
    noise: Iterator[np.ndarray],
    v: np.ndarray | None = None,
    residual: Residual = WHOLE_IMAGE,
) -> np.ndarray:
    centre, deviation = np.asarray(residual.centre), residual.deviation
    x, x0_before, lambda_before = next(noise), None, None
    for t, s in zip(steps, [*steps[1:], -1], strict=True):
        a_t, a_s = table[t], table[s] if s >= 0 else 1.0
        out = toy_prediction(x, a_t, kind, scale, np)
        x0 = {
            "x0": out,
            "epsilon": (x - np.sqrt(1 - a_t) * out) / np.sqrt(a_t),
            "v": np.sqrt(a_t) * x - np.sqrt(1 - a_t) * out,
        }[kind]
        if config.threshold == "static":
            image = np.clip(centre + deviation * x0 / scale, -1, 1)
            x0 = scale * (image - centre) / deviation
        if s < 0:  # every method ends on its estimate of x0
            return centre + deviation * x0 / scale
        if config.method == "ddpm":  # Ho et al., eq. 6, 7; Nichol & Dhariwal, eq. 15
            alpha = a_t / a_s
            beta, beta_tilde = 1 - alpha, (1 - a_s) / (1 - a_t) * (1 - alpha)
            mean = np.sqrt(a_s) * beta / (1 - a_t) * x0
            mean = mean + np.sqrt(alpha) * (1 - a_s) / (1 - a_t) * x
            gamma = config.gamma if v is None else (v + 1) / 2
            x = mean + np.sqrt(beta**gamma * beta_tilde ** (1 - gamma)) * next(noise)
        elif config.method == "ddim":  # Song et al., eq. 12, 16
            eps = (x - np.sqrt(a_t) * x0) / np.sqrt(1 - a_t)
            sigma = config.eta * np.sqrt((1 - a_s) / (1 - a_t)) * np.sqrt(1 - a_t / a_s)
            x = np.sqrt(a_s) * x0 + np.sqrt(1 - a_s - sigma**2) * eps
            x = x + sigma * next(noise) if config.eta else x
        else:  # Lu et al., algorithm 2
            lambda_t, lambda_s = (np.log(np.sqrt(a) / np.sqrt(1 - a)) for a in (a_t, a_s))
            h, d = lambda_s - lambda_t, x0
            if x0_before is not None:
                r = (lambda_t - lambda_before) / h
                d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
            x0_before, lambda_before = x0, lambda_t
            x = np.sqrt(1 - a_s) / np.sqrt(1 - a_t) * x - np.sqrt(a_s) * (np.exp(-h) - 1) * d
    raise AssertionError


# ---------------------------------------------------------------- comparing


@dataclass
class Noise:
    """The same float64 stream for both sides."""

    seed: int = 0

    def stream(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        while True:
            yield rng.standard_normal(SHAPE)

    def draw(self) -> Callable[[], torch.Tensor]:
        stream = self.stream()
        return lambda: torch.from_numpy(next(stream))


def ours(
    settings: dict,
    steps: int,
    config: SamplerConfig,
    kind: str,
    v: torch.Tensor | None = None,
    residual: Residual = WHOLE_IMAGE,
    start: Start | None = None,
) -> np.ndarray:
    """Our sampler on the toy network, which reads the reference's table."""
    table, scale = reference_table(settings, steps), settings.get("input_scale", 1.0)

    def denoise(x: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        return toy_prediction(x, table[t], kind, scale, torch), v

    schedule = NoiseSchedule(ScheduleConfig.model_validate({**settings, "num_steps": steps}))
    return sample(denoise, schedule, kind, config, Noise().draw(), residual, start=start).numpy()


def largest_difference(
    settings: dict, config: SamplerConfig, kind: str, steps: list[int], v: np.ndarray | None = None
) -> float:
    count = steps[0] + 1
    table, scale = reference_table(settings, count), settings.get("input_scale", 1.0)
    expected = reference_sample(table, steps, config, kind, scale, Noise().stream(), v)
    given = ours(settings, count, config, kind, None if v is None else torch.from_numpy(v))
    assert given.dtype == np.float64
    return float(np.abs(given - expected).max())


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", METHODS)
def test_1000_steps_agree_with_the_reference_to_1e_10(
    method: str, schedule: str, kind: str
) -> None:
    config = SamplerConfig.model_validate({**METHODS[method], "steps": T})
    solver = config.method == "dpm-solver++"  # leaves t = 0 out, so needs one point more
    steps = list(range(T, 0, -1)) if solver else list(range(T - 1, -1, -1))
    assert largest_difference(SCHEDULES[schedule], config, kind, steps) <= 1e-10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 7, 128])
def test_few_steps_agree_with_the_reference(method: str, count: int) -> None:
    config = SamplerConfig.model_validate({**METHODS[method], "steps": count})
    points = count + (config.method == "dpm-solver++")
    steps = [round(T - 1 - i * (T - 1) / max(1, points - 1)) for i in range(count)]
    assert largest_difference(SCHEDULES["cosine"], config, "v", steps) <= 1e-10


def test_learned_variance_agrees_with_the_reference() -> None:
    config = SamplerConfig(steps=T, threshold="none")
    v = np.linspace(-1, 1, int(np.prod(SHAPE))).reshape(SHAPE)
    steps = list(range(T - 1, -1, -1))
    assert largest_difference(SCHEDULES["cosine"], config, "epsilon", steps, v) <= 1e-10


def test_a_learned_variance_of_one_coefficient_is_gamma() -> None:
    fixed = SamplerConfig(steps=50, gamma=0.3)
    v = torch.full(SHAPE, 2 * 0.3 - 1, dtype=torch.float64)
    given = ours(SCHEDULES["linear"], T, SamplerConfig(steps=50), "epsilon", v)
    np.testing.assert_allclose(given, ours(SCHEDULES["linear"], T, fixed, "epsilon"), atol=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "sigmoid"])
@pytest.mark.parametrize("method", METHODS)
def test_a_residual_agrees_with_the_reference_and_is_clipped_as_an_image(
    method: str, schedule: str
) -> None:
    config = SamplerConfig.model_validate({**METHODS[method], "steps": 50})
    points = 50 + (config.method == "dpm-solver++")
    steps = [round(T - 1 - i * (T - 1) / (points - 1)) for i in range(50)]
    residual = Residual(torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(SHAPE), 0.9)
    table, scale = (
        reference_table(SCHEDULES[schedule], T),
        SCHEDULES[schedule].get("input_scale", 1),
    )
    expected = reference_sample(
        table, steps, config, "v", scale, Noise().stream(), residual=residual
    )
    given = ours(SCHEDULES[schedule], T, config, "v", residual=residual)
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-10)
    assert np.abs(given).max() == pytest.approx(1)  # some pixels were beyond
    assert not np.allclose(given, ours(SCHEDULES[schedule], T, config, "v"), atol=0.01)


@pytest.mark.parametrize("schedule", ["cosine", "sigmoid"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("strength", "made"), [(0.7, 35), (0.31, 16), (0.001, 1), (1.0, 50)])
def test_a_start_is_noised_to_the_first_of_the_steps_that_are_made(
    method: str, schedule: str, strength: float, made: int
) -> None:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps in the reference's place of noise alone."""
    config = SamplerConfig.model_validate({**METHODS[method], "steps": 50})
    points = 50 + (config.method == "dpm-solver++")
    steps = [round(T - 1 - i * (T - 1) / (points - 1)) for i in range(50)][-made:]
    table, settings = reference_table(SCHEDULES[schedule], T), SCHEDULES[schedule]
    scale = settings.get("input_scale", 1.0)
    images = np.linspace(-1, 1, int(np.prod(SHAPE))).reshape(SHAPE)

    def begun() -> Iterator[np.ndarray]:
        noise, level = Noise().stream(), table[steps[0]]
        yield level**0.5 * scale * images + (1 - level) ** 0.5 * next(noise)
        yield from noise

    expected = reference_sample(table, steps, config, "v", scale, begun())
    given = ours(settings, T, config, "v", start=Start(torch.from_numpy(images), strength))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-10)


def test_all_steps_from_a_start_are_nearly_those_from_noise() -> None:
    """At strength 1 next to nothing is left of the images: sqrt(abar_T) of the linear schedule."""
    config = SamplerConfig(method="ddim", steps=50)
    images = torch.full(SHAPE, 0.9, dtype=torch.float64)
    alone = ours(SCHEDULES["linear"], T, config, "v")
    begun = ours(SCHEDULES["linear"], T, config, "v", start=Start(images, 1.0))
    assert 0 < np.abs(begun - alone).max() < 0.05
    half = ours(SCHEDULES["linear"], T, config, "v", start=Start(images, 0.5))
    assert np.abs(half - alone).max() > 0.2


# ---------------------------------------------------------------- what is sampled


@pytest.mark.parametrize("method", METHODS)
def test_a_perfect_network_gives_the_distribution_it_knows(method: str) -> None:
    """With the exact posterior mean of N(0.2, 0.3^2), samples have that mean and deviation."""
    config = SamplerConfig.model_validate({**METHODS[method], "steps": 100, "threshold": "none"})
    schedule = NoiseSchedule(ScheduleConfig(name="cosine"))
    rng = np.random.default_rng(1)

    def denoise(x: torch.Tensor, t: int) -> tuple[torch.Tensor, None]:
        abar = float(schedule.alphas_cumprod[t])
        return 0.2 + 0.09 * abar**0.5 / (abar * 0.09 + 1 - abar) * (x - abar**0.5 * 0.2), None

    noise = lambda: torch.from_numpy(rng.standard_normal((10_000, 1, 1, 1)))  # noqa: E731
    x0 = sample(denoise, schedule, "x0", config, noise)
    assert float(x0.mean()) == pytest.approx(0.2, abs=0.012)  # 4 standard errors
    # gamma = 0 and 1 are bounds of the variance: too narrow, too wide by what 100 steps leave
    assert float(x0.std()) == pytest.approx(
        0.3, abs=0.012 if config.gamma == 0.3 or config.method != "ddpm" else 0.03
    )


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpm-solver++"])
@pytest.mark.parametrize("count", [1, 2, 12, 128, 999])
def test_the_first_step_is_the_noisiest_and_none_is_taken_twice(method: str, count: int) -> None:
    config = SamplerConfig.model_validate({"method": method, "steps": count})
    steps = sampling_steps(NoiseSchedule(ScheduleConfig(num_steps=T)), config)
    assert steps[0] == T - 1
    assert len(steps) == count
    assert np.all(np.diff(steps) < 0)
    assert steps[-1] > 0 or method != "dpm-solver++"


@pytest.mark.parametrize(
    ("method", "wanted"),
    [("ddim", [999, 444, 111, 0]), ("dpm-solver++", [999, 562, 250, 62])],  # 999 (1 - i / n)^2
)
def test_steps_spaced_by_a_power_crowd_where_there_is_little_noise(
    method: str, wanted: list[int]
) -> None:
    settings = {"method": method, "steps": 4, "spacing_power": 2}
    schedule = NoiseSchedule(ScheduleConfig(num_steps=1000))
    assert sampling_steps(schedule, SamplerConfig.model_validate(settings)) == wanted
    twice = SamplerConfig.model_validate(settings | {"steps": 128})
    with pytest.raises(UserError, match="spacing_power = 2 makes one of 1000 steps twice"):
        sampling_steps(schedule, twice)


@pytest.mark.parametrize(("method", "limit"), [("ddpm", T), ("ddim", T), ("dpm-solver++", T - 1)])
def test_more_steps_than_the_schedule_has_are_refused(method: str, limit: int) -> None:
    schedule = NoiseSchedule(ScheduleConfig(num_steps=T))
    sampling_steps(schedule, SamplerConfig.model_validate({"method": method, "steps": limit}))
    too_many = SamplerConfig.model_validate({"method": method, "steps": limit + 1})
    with pytest.raises(UserError, match=str(limit)):
        sampling_steps(schedule, too_many)


@pytest.mark.parametrize("settings", [{"method": "ddim", "gamma": 0.3}, {"eta": 0.5}])
def test_a_setting_that_would_do_nothing_is_refused(settings: dict) -> None:
    with pytest.raises(ValidationError, match="no effect"):
        SamplerConfig.model_validate(settings)


@pytest.mark.parametrize("level", [0, 1, 7, 254])
def test_the_black_point_is_a_level_of_8_bits(level: int) -> None:
    images = torch.linspace(-1.1, 1.1, 5001, dtype=torch.float64)
    rounded = ((images + 1) * 127.5).round().clamp(0, 255)
    found = ((blackened(images, level) + 1) * 127.5).round().clamp(0, 255)
    assert torch.equal(found, torch.where(rounded <= level, 0.0, rounded))
    assert level > 0 or blackened(images, level) is images


def test_finished_images_have_the_black_point_and_their_other_pixels_stay() -> None:
    plain, black = (
        ours(SCHEDULES["cosine"], T, SamplerConfig(steps=20, black_point=k), "v") for k in (0, 70)
    )
    dark = plain <= 70.5 / 127.5 - 1
    assert 0 < dark.sum() < dark.size
    np.testing.assert_array_equal(black, np.where(dark, -1.0, plain))


@pytest.mark.parametrize(
    "other", [{"threshold": "none"}, {"method": "native"}, {"threshold": "dynamic"}]
)
def test_a_black_point_goes_with_pixels_in_bounds_alone(other: dict) -> None:
    with pytest.raises(ValidationError, match="black_point is of images"):
        SamplerConfig.model_validate({"black_point": 4} | other)


def test_a_sampler_without_a_black_point_is_written_as_before_there_was_one() -> None:
    assert "black_point" not in SamplerConfig().model_dump()
    assert SamplerConfig(black_point=4).model_dump()["black_point"] == 4


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_threshold_is_imagen_section_2_3(percentile: float) -> None:
    x0 = np.random.default_rng(2).normal(0, [[0.2], [0.8], [3.0], [1.0]], (4, 48))
    expected = []
    for row in x0:
        ordered, place = np.sort(np.abs(row)), percentile * 47
        low, high = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        s = max(1.0, low + (high - low) * (place - np.floor(place)))
        expected.append([min(max(value, -s), s) / s for value in row])
    config = SamplerConfig(threshold="dynamic", dynamic_percentile=percentile)
    given = apply_threshold(torch.from_numpy(x0).view(4, 3, 4, 4), config)
    np.testing.assert_allclose(given.view(4, 48).numpy(), expected, atol=1e-12)


def test_static_threshold_clips_and_none_does_nothing() -> None:
    x0 = torch.linspace(-3, 3, 12).view(1, 1, 3, 4)
    static = apply_threshold(x0, SamplerConfig(threshold="static"))
    np.testing.assert_array_equal(static.numpy(), np.clip(x0.numpy(), -1, 1))
    assert apply_threshold(x0, SamplerConfig(threshold="none")) is x0
