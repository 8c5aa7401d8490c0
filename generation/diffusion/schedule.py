"""Noise schedules: how much of the image is left at each of T diffusion steps.

The forward process is x_t = sqrt(abar_t) * b * x_0 + sqrt(1 - abar_t) * eps with
x_0 in [-1, 1], eps ~ N(0, 1), abar_t ("alphas_cumprod" in diffusers) falling from
about 1 at t = 0 to about 0 at t = T - 1, and b the input scale of Chen 2023.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2: keeps the last steps finite


ScheduleName = Literal[
    "linear", "scaled-linear", "cosine", "shifted-cosine", "sigmoid", "linear-signal"
]


class ScheduleConfig(BaseModel):
    """A noise schedule as a recipe names it.

    linear: beta from `beta_start` to `beta_end` (Ho et al. 2020); scaled-linear: the square root
    of beta is linear (Rombach et al. 2022); cosine (Nichol & Dhariwal 2021, eq. 17);
    shifted-cosine: logSNR = -2*log(tan(pi*t/2)) + 2*log(64/resolution) (Hoogeboom et al. 2023,
    eq. 4); sigmoid: (start, end, tau) of Chen 2023, algorithm 1; linear-signal: abar = 1 - t, the
    one Chen 2023 goes with an input scale.
    A schedule that does not fall strictly from 1 to 0 at every step is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ScheduleName = "cosine"
    num_steps: Annotated[int, Field(gt=1)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    resolution: Annotated[int, Field(gt=0)] = 64
    start: float = -3.0
    end: float = 3.0
    tau: Annotated[float, Field(gt=0)] = 1.0
    input_scale: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _falls_at_every_step(self) -> Self:
        if self.name == "sigmoid" and self.start == self.end:
            raise ValueError("a sigmoid schedule needs start and end apart")
        abar = np.cumprod(1.0 - _betas(self))
        if not (abar[0] < 1 and abar[-1] > 0 and np.all(np.diff(abar) < 0)):
            raise ValueError(f"the {self.name} schedule is flat at some step; change its settings")
        return self


@dataclass(frozen=True)
class NoiseSchedule:
    """The table of one schedule. `alphas_cumprod`: float64[T], in (0, 1), falling."""

    config: ScheduleConfig

    @cached_property
    def alphas_cumprod(self) -> np.ndarray:
        """abar_t for t = 0 ... T - 1, float64[T]."""
        return np.cumprod(1.0 - _betas(self.config))

    @cached_property
    def log_snr(self) -> np.ndarray:
        """log(abar_t / (1 - abar_t)), float64[T], falling."""
        abar = self.alphas_cumprod
        found: np.ndarray = np.log(abar) - np.log1p(-abar)
        return found

    @cached_property
    def noise_shares(self) -> np.ndarray:
        """sigma / (alpha + sigma) of x_t = alpha x_0 + sigma eps, 1 for noise alone; float64[T].

        A linear path (1 - share) x_0 + share eps has the same ratio of signal and noise there, and
        so has EDM's x_0 + sigma' eps at sigma' / (1 + sigma'): these are the shares of flow_times.
        """
        abar = self.alphas_cumprod
        alpha, sigma = np.sqrt(abar) * self.input_scale, np.sqrt(1 - abar)
        shares: np.ndarray = sigma / (alpha + sigma)
        return shares

    @property
    def num_steps(self) -> int:
        """T, the length of the table."""
        return self.config.num_steps

    @property
    def input_scale(self) -> float:
        """b, what the clean image is multiplied by."""
        return self.config.input_scale


def level_abar(level: float) -> float:
    """abar of a noise level in [0, 1), which counts along a cosine."""
    return math.cos(level * math.pi / 2) ** 2


def _betas(config: ScheduleConfig) -> np.ndarray:
    """beta_t = 1 - abar(t + 1) / abar(t), clipped; float64[T]."""
    steps = config.num_steps
    if config.name == "linear":
        return np.linspace(config.beta_start, config.beta_end, steps, dtype=np.float64)
    if config.name == "scaled-linear":
        roots = np.linspace(config.beta_start**0.5, config.beta_end**0.5, steps, dtype=np.float64)
        return np.square(roots)
    times = np.arange(steps + 1, dtype=np.float64) / steps
    abar = _continuous_alphas_cumprod(config, times)
    betas: np.ndarray = np.clip(1.0 - abar[1:] / abar[:-1], 0.0, LARGEST_BETA)
    return betas


def _continuous_alphas_cumprod(config: ScheduleConfig, time: np.ndarray) -> np.ndarray:
    """abar at `time` in [0, 1], float64, before beta is clipped."""
    if config.name == "sigmoid":
        low, high = _sigmoid(np.array([config.start, config.end]) / config.tau)
        value = _sigmoid((time * (config.end - config.start) + config.start) / config.tau)
        abar: np.ndarray = np.maximum((high - value) / (high - low), 1e-9)
        return abar
    if config.name == "linear-signal":
        linear: np.ndarray = np.maximum(1 - time, 1e-9)
        return linear
    if config.name == "cosine":
        return np.square(np.cos((time + 0.008) / 1.008 * math.pi / 2))
    abar = np.clip(np.cos(time * math.pi / 2) ** 2, 1e-9, 1 - 1e-9)
    return _sigmoid(np.log(abar) - np.log1p(-abar) + 2 * math.log(64 / config.resolution))


def _sigmoid(value: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.exp(-np.logaddexp(0.0, -value))
    return result
