"""The reverse process: from noise to images, one loop for every method.

Notation: abar_t is the schedule's table, x the current image, x0 the network's
estimate of the clean image, s the step that follows t (s < t; after the last step
abar_s = 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, expm1, log, log1p, sqrt
from typing import Protocol

import torch
from torch import Tensor

from generation.diffusion.augmentation import noisy_range
from generation.diffusion.residual import WHOLE_IMAGE, Residual
from generation.diffusion.sampler_config import Prediction, SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import final_abar, visited_steps
from release.errors import UserError


class Denoiser(Protocol):
    """A network with its conditioning bound, guidance already applied.

    Called with x float[N,C,H,W] and the table index t; returns the prediction, same shape, and
    (for networks that learn their variance) v, about in [-1, 1], of the same shape, else None.
    """

    def __call__(self, x: Tensor, t: int) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Start:
    """What sampling begins from in place of noise alone: images, noised to its first step.

    SDEdit (Meng et al. 2022, arXiv 2108.01073, section 3); with real images of the class "real
    guidance" (He et al. 2023, arXiv 2210.07574, section 3.2). images: float[N,C,H,W] in [-1, 1].
    strength: share of the steps that is made, the last ones, in (0, 1].
    """

    images: Tensor
    strength: float


LEAST_GUIDED = 0.01  # sqrt(abar): of a cosine's 1000 steps the noisiest seven have less
# Of x float[N,C,H,W] at the table index t: a gradient towards what is wanted, of x's shape.
Guide = Callable[[Tensor, int], Tensor]


def predicted_x0(
    prediction: Tensor, kind: Prediction, x: Tensor, signal: float | Tensor, noise: float | Tensor
) -> Tensor:
    """x0 from the network's output, with signal = sqrt(abar_t) and noise = sqrt(1 - abar_t).

    epsilon: Ho et al. 2020; v: Salimans & Ho 2022, app. D.
    """
    if kind == "epsilon":
        return (x - noise * prediction) / signal
    if kind == "v":
        return signal * x - noise * prediction
    return prediction


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """A network's output as its prediction, float[N,C,H,W], and v of that shape if it learns it."""
    v = output[:, channels:]
    return output[:, :channels], v if v.shape[1] > 0 else None


def apply_threshold(x0: Tensor, config: SamplerConfig) -> Tensor:
    """Static: clip to [-1, 1]. Dynamic: Imagen (Saharia et al. 2022), section 2.3."""
    if config.threshold == "none":
        return x0
    if config.threshold == "static":
        return x0.clamp(-1, 1)
    scale = torch.quantile(x0.flatten(1).abs(), config.dynamic_percentile, dim=1)
    scale = scale.clamp(min=1.0).view(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-scale, scale) / scale


def blackened(images: Tensor, level: int) -> Tensor:
    """`images` in [-1, 1], black where 8 bits would round them to `level` of 0 ... 255 or less."""
    if level == 0:
        return images
    return torch.where(images <= (level + 0.5) / 127.5 - 1, -1.0, images)


@torch.no_grad()
def sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    kind: Prediction,
    config: SamplerConfig,
    draw_noise: Callable[[], Tensor],
    residual: Residual = WHOLE_IMAGE,
    guide: Guide | None = None,
    start: Start | None = None,
) -> Tensor:
    """Run the reverse process; returns images, float[N,C,H,W], about in [-1, 1].

    `draw_noise` gives the next standard normal of the batch's shape: the start, then one a step
    for the methods that add noise. start: images that the first noise is added to. residual: what
    is diffused of an image; bounds are of images.
    guide: a classifier's gradient, scaled, such as s * grad log p(y | x_t); it moves the mean of
    ddpm, and x0 of the others (Dhariwal & Nichol 2021, algorithms 1 and 2; as in their code, after
    x0 is bounded). x0 is moved by 1 / sqrt(abar_t) of it, so not at steps with less signal than
    LEAST_GUIDED, where an error of the classifier would decide the image, and is bounded anew.
    """
    if config.stop and (schedule.input_scale != 1 or residual is not WHOLE_IMAGE):
        raise UserError(
            "stop leaves noise in whole images that are not scaled: leave it out for a network of "
            "residuals, or with input_scale below 1"
        )
    steps = _transitions(schedule, config, 1.0 if start is None else start.strength)
    x = draw_noise()
    if start is not None:
        x = _noised(residual.of(start.images) * schedule.input_scale, x, steps[0][1])
    solver = SecondOrderSolver()

    def bounded(x0: Tensor) -> Tensor:
        image = residual.image(x0 / schedule.input_scale)
        return residual.of(apply_threshold(image, config)) * schedule.input_scale

    for t, abar_t, abar_s in steps:
        prediction, v = denoise(x, t)
        x0 = bounded(predicted_x0(prediction, kind, x, sqrt(abar_t), sqrt(1 - abar_t)))
        gradient = None
        if guide is not None and (config.method == "ddpm" or abar_t >= LEAST_GUIDED**2):
            gradient = guide(x, t)
        if gradient is not None and config.method != "ddpm":
            x0 = bounded(guided_x0(x0, gradient, abar_t))
        if abar_s == 1.0:  # what every method's update comes to after the last step
            x = x0
        elif config.method == "ddpm":
            std = ddpm_deviation(config.gamma if v is None else (v + 1) / 2, abar_t, abar_s)
            mean = ddpm_mean(x, x0, abar_t, abar_s)
            if gradient is not None:
                mean = mean + std**2 * gradient  # algorithm 1
            x = mean + std * draw_noise()
        elif config.method == "ddim":
            x = ddim_step(x, x0, config.eta, abar_t, abar_s, draw_noise)
        else:
            x = solver.step(x, x0, abar_t, abar_s)
    image = residual.image(x / schedule.input_scale)
    return blackened(image / noisy_range(config.stop), config.black_point)


def _noised(x0: Tensor, noise: Tensor, abar_t: float) -> Tensor:
    """x_t ~ q(x_t | x_0), Ho et al. 2020, eq. 4."""
    return sqrt(abar_t) * x0 + sqrt(1 - abar_t) * noise


def _transitions(
    schedule: NoiseSchedule, config: SamplerConfig, strength: float
) -> list[tuple[int, float, float]]:
    """Each step t, its abar_t, and abar_s of what follows; 1 at the end, or that of `stop`.

    strength: share of the steps, the last ones.
    """
    visited, table = visited_steps(schedule, config, strength), schedule.alphas_cumprod
    levels = [*(float(table[t]) for t in visited), final_abar(config)]
    return list(zip(visited, levels, levels[1:], strict=False))


def ddpm_mean(x: Tensor, x0: Tensor, abar_t: float, abar_s: float) -> Tensor:
    """Mean of q(x_s | x_t, x0), Ho et al. 2020, eq. 7, between any two steps."""
    alpha = abar_t / abar_s
    return (sqrt(abar_s) * (1 - alpha) * x0 + sqrt(alpha) * (1 - abar_s) * x) / (1 - abar_t)


def guided_x0(x0: Tensor, gradient: Tensor, abar_t: float) -> Tensor:
    """x0 of eps - sqrt(1 - abar_t) * gradient, as of algorithm 2."""
    return x0 + (1 - abar_t) / sqrt(abar_t) * gradient


def ddpm_deviation(gamma: float | Tensor, abar_t: float, abar_s: float) -> float | Tensor:
    """exp(logvar / 2), logvar = gamma*log(beta) + (1 - gamma)*log(beta~).

    gamma is a setting (0: lower bound, 1: upper bound), or what the network learned, one a pixel
    (Nichol & Dhariwal 2021, eq. 15).
    """
    beta = 1 - abar_t / abar_s
    beta_tilde = beta * (1 - abar_s) / (1 - abar_t)
    log_deviation = (gamma * log(beta) + (1 - gamma) * log(beta_tilde)) / 2
    return log_deviation.exp() if isinstance(log_deviation, Tensor) else exp(log_deviation)


def ddim_step(
    x: Tensor,
    x0: Tensor,
    eta: float,
    abar_t: float,
    abar_s: float,
    draw_noise: Callable[[], Tensor],
) -> Tensor:
    """Song et al. 2021, eq. 12 and 16; eps is the one that belongs to the thresholded x0."""
    eps = (x - sqrt(abar_t) * x0) / sqrt(1 - abar_t)
    variance = eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
    x = sqrt(abar_s) * x0 + sqrt(1 - abar_s - variance) * eps
    return x + sqrt(variance) * draw_noise() if eta > 0 else x


class SecondOrderSolver:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2; its first step is of first order."""

    def __init__(self) -> None:
        self._previous: tuple[Tensor, float] | None = None  # x0 and the log-SNR step before

    def step(self, x: Tensor, x0: Tensor, abar_t: float, abar_s: float) -> Tensor:
        """x at s from x at t and the estimates of x0 at t and, from memory, at the step before."""
        h = _half_log_snr(abar_s) - _half_log_snr(abar_t)
        estimate = x0
        if self._previous is not None:
            x0_before, h_before = self._previous
            estimate = x0 + (x0 - x0_before) * (h / (2 * h_before))
        self._previous = (x0, h)
        return sqrt((1 - abar_s) / (1 - abar_t)) * x - sqrt(abar_s) * expm1(-h) * estimate


def _half_log_snr(abar: float) -> float:
    return 0.5 * (log(abar) - log1p(-abar))
