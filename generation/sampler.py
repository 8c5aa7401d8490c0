"""The reverse process: from noise to images, one loop for every method.

Notation: abar_t is the schedule's table, x the current image, x0 the network's
estimate of the clean image, s the step that follows t (s < t; after the last step
abar_s = 1).
"""

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from generation.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v", "x0"]


class SamplerConfig(BaseModel):
    """Sampler settings, named as in Azizi et al. 2023 and Saharia et al. 2022.

    method: "ddpm" is ancestral sampling (Ho et al. 2020), "ddim" Song et al. 2021 with `eta`,
    "dpm-solver++" the second-order multistep solver 2M of Lu et al. 2022 (algorithm 2).
    guidance: w in uncond + w * (cond - uncond); w = 1 runs no unconditional pass.
    gamma: log-variance coefficient, logvar = gamma*log(beta) + (1 - gamma)*log(beta~).
    noise_augmentation: how much noise the low-resolution input gets, in [0, 1), as a share of T.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["ddpm", "ddim", "dpm-solver++"] = "ddpm"
    steps: Annotated[int, Field(gt=0)] = 1000
    guidance: Annotated[float, Field(ge=0)] = 1.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    threshold: Literal["none", "static", "dynamic"] = "static"
    dynamic_percentile: Annotated[float, Field(gt=0, le=1)] = 0.995
    noise_augmentation: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def network_evaluations(self) -> int:
        """Network evaluations an image takes, the unconditional ones included."""
        return self.steps * (1 if self.guidance == 1 else 2)


class Denoiser(Protocol):
    """A network with its conditioning bound, guidance already applied.

    Called with x float[N,C,H,W] and the table index t; returns the prediction, same shape, and
    (for networks that learn their variance) v in [-1, 1] of the same shape, else None.
    """

    def __call__(self, x: Tensor, t: int) -> tuple[Tensor, Tensor | None]: ...


def sampling_steps(schedule: NoiseSchedule, config: SamplerConfig) -> list[int]:
    """The table indices visited, falling from T - 1: the noisiest step is never left out.

    A solver that ends on x0 gains nothing from evaluating t = 0, so its last point is dropped.
    """
    extra = 1 if config.method == "dpm-solver++" else 0
    if config.steps + extra > schedule.num_steps:
        raise ValueError(f"steps = {config.steps} is more than the schedule's {schedule.num_steps}")
    points = np.linspace(schedule.num_steps - 1, 0, config.steps + extra)
    return [int(p) for p in np.round(points)[: config.steps]]


def predicted_x0(prediction: Tensor, kind: Prediction, x: Tensor, abar: float) -> Tensor:
    """x0 from the network's output. epsilon: Ho et al. 2020; v: Salimans & Ho 2022, app. D."""
    if kind == "epsilon":
        return (x - (1 - abar) ** 0.5 * prediction) / abar**0.5
    if kind == "v":
        return abar**0.5 * x - (1 - abar) ** 0.5 * prediction
    return prediction


def apply_threshold(x0: Tensor, config: SamplerConfig) -> Tensor:
    """Static: clip to [-1, 1]. Dynamic: Imagen (Saharia et al. 2022), section 2.3."""
    if config.threshold == "none":
        return x0
    if config.threshold == "static":
        return x0.clamp(-1, 1)
    scale = torch.quantile(x0.flatten(1).abs(), config.dynamic_percentile, dim=1)
    scale = scale.clamp(min=1.0).view(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-scale, scale) / scale


def sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    kind: Prediction,
    config: SamplerConfig,
    draw_noise: Callable[[], Tensor],
) -> Tensor:
    """Run the reverse process; returns x0, float[N,C,H,W], about in [-1, 1].

    `draw_noise` gives the next standard normal of the batch's shape: the start, then one a step
    for the methods that add noise.
    """
    x = draw_noise()
    steps = sampling_steps(schedule, config)
    table = schedule.alphas_cumprod
    update = {"ddpm": _ddpm_step, "ddim": _ddim_step, "dpm-solver++": _SolverStep()}[config.method]
    for i, t in enumerate(steps):
        abar_t = float(table[t])
        abar_s = float(table[steps[i + 1]]) if i + 1 < len(steps) else 1.0
        prediction, v = denoise(x, t)
        x0 = predicted_x0(prediction, kind, x, abar_t) / schedule.input_scale
        x0 = apply_threshold(x0, config) * schedule.input_scale
        x = update(x, x0, v, abar_t, abar_s, config, draw_noise)
    return x / schedule.input_scale


def _ddpm_step(
    x: Tensor,
    x0: Tensor,
    v: Tensor | None,
    abar_t: float,
    abar_s: float,
    config: SamplerConfig,
    draw_noise: Callable[[], Tensor],
) -> Tensor:
    """Ho et al. 2020, eq. 7, between any two steps, with the variance of gamma or learned."""
    alpha = abar_t / abar_s
    beta = 1 - alpha
    mean = (abar_s**0.5 * beta * x0 + alpha**0.5 * (1 - abar_s) * x) / (1 - abar_t)
    if abar_s == 1.0:
        return mean
    log_beta = float(np.log(beta))
    log_beta_tilde = float(np.log(beta * (1 - abar_s) / (1 - abar_t)))
    if v is None:
        std: Tensor | float = float(
            np.exp(0.5 * (config.gamma * log_beta + (1 - config.gamma) * log_beta_tilde))
        )
    else:  # Nichol & Dhariwal 2021, eq. 15: the network gives the coefficient, (v + 1) / 2
        fraction = (v + 1) / 2
        std = torch.exp(0.5 * (fraction * log_beta + (1 - fraction) * log_beta_tilde))
    return mean + std * draw_noise()


def _ddim_step(
    x: Tensor,
    x0: Tensor,
    v: Tensor | None,
    abar_t: float,
    abar_s: float,
    config: SamplerConfig,
    draw_noise: Callable[[], Tensor],
) -> Tensor:
    """Song et al. 2021, eq. 12 and 16; eps is the one that belongs to the thresholded x0."""
    eps = (x - abar_t**0.5 * x0) / (1 - abar_t) ** 0.5
    variance = config.eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
    x = abar_s**0.5 * x0 + (1 - abar_s - variance) ** 0.5 * eps
    return x + variance**0.5 * draw_noise() if variance > 0 else x


class _SolverStep:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2; first order at both ends."""

    def __init__(self) -> None:
        self._previous: tuple[Tensor, float] | None = None  # x0 and the log-SNR step before

    def __call__(
        self,
        x: Tensor,
        x0: Tensor,
        v: Tensor | None,
        abar_t: float,
        abar_s: float,
        config: SamplerConfig,
        draw_noise: Callable[[], Tensor],
    ) -> Tensor:
        if abar_s == 1.0:
            return x0
        h = _half_log_snr(abar_s) - _half_log_snr(abar_t)
        estimate = x0
        if self._previous is not None:
            x0_before, h_before = self._previous
            estimate = x0 + (x0 - x0_before) * (h / (2 * h_before))
        self._previous = (x0, h)
        ratio = ((1 - abar_s) / (1 - abar_t)) ** 0.5
        return ratio * x - abar_s**0.5 * float(np.expm1(-h)) * estimate


def _half_log_snr(abar: float) -> float:
    return 0.5 * float(np.log(abar) - np.log1p(-abar))
