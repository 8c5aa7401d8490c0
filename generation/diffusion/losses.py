"""What a diffusion network learns: its target at a noise level, and the losses.

The hybrid loss of Nichol & Dhariwal 2021 also teaches it its own variance.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler import predicted_x0
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule

BOUND_WEIGHT = 0.001  # lambda of eq. 16


@dataclass(frozen=True)
class NoisyImages:
    """Images on their way to noise: x = signal * x0 + spread * noise, at the schedule's step t.

    x0 float[N,C,H,W], times the schedule's input scale; noise of its shape; t int64[N]; signal =
    sqrt(abar_t) and spread = sqrt(1 - abar_t), float[N,1,1,1].
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    signal: Tensor
    spread: Tensor

    @classmethod
    def draw(cls, x0: Tensor, schedule: NoiseSchedule, rng: ImageRandom) -> "NoisyImages":
        """Each at a step of its own, all alike in probability; on the device of both."""
        return cls.at(rng.integers(schedule.num_steps), x0, schedule, rng)

    @classmethod
    def at(cls, t: Tensor, x0: Tensor, schedule: NoiseSchedule, rng: ImageRandom) -> "NoisyImages":
        """At these steps, int64[N]."""
        noise = rng.normal(*x0.shape[1:])
        table = torch.from_numpy(schedule.alphas_cumprod).float().to(x0.device)
        abar = table[t].view(-1, 1, 1, 1)
        return cls(x0, noise, t, abar.sqrt(), (1 - abar).sqrt())

    @cached_property
    def x(self) -> Tensor:
        """What the network sees."""
        return self.signal * self.x0 + self.spread * self.noise

    def target(self, prediction: Prediction) -> Tensor:
        """What it is to say; v as in Salimans & Ho 2022, appendix D."""
        if prediction == "epsilon":
            return self.noise
        if prediction == "v":
            return self.signal * self.noise - self.spread * self.x0
        return self.x0


def denoising_loss(
    said: Tensor, v: Tensor | None, images: NoisyImages, kind: Prediction, schedule: NoiseSchedule
) -> Tensor:
    """Mean squared error of what the network said, and the hybrid term where it gives v.

    On the device where it said it; the images are moved there.
    """
    loss = F.mse_loss(said, images.target(kind).to(said.device))
    if v is None:
        return loss
    tensors = (images.x0, images.x, images.t, images.signal, images.spread)
    x0, x, t, signal, spread = (tensor.to(said.device) for tensor in tensors)
    return loss + hybrid_term(v, predicted_x0(said, kind, x, signal, spread), x0, t, schedule)


def hybrid_term(
    v: Tensor, x0_estimate: Tensor, x0: Tensor, t: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """lambda * L_vlb, what eq. 16 adds to the simple loss; one number.

    v, x0_estimate, x0 float[N,C,H,W] (x0 times the schedule's input scale); t int64[N], uniform,
    so that T times the mean of the terms estimates their sum over all steps. Only v is taught: the
    estimate's gradient is cut. In bits a dimension, as in the authors' code.
    """
    terms = variational_terms(v, x0_estimate.detach(), x0, t, schedule)
    return BOUND_WEIGHT * schedule.num_steps * terms.mean() / math.log(2)


def variational_terms(
    v: Tensor, x0_estimate: Tensor, x0: Tensor, t: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """L_t of Nichol & Dhariwal's eq. 4 to 6, each at its own step: float[N,C,H,W], in nats."""
    weight, upper, lower = (
        torch.from_numpy(table).to(v)[t].view(-1, 1, 1, 1) for table in _step_tables(schedule)
    )
    fraction = (v + 1) / 2
    log_variance = fraction * upper + (1 - fraction) * lower  # eq. 15
    # both means hold the same share of x_t, so they differ by their x0 alone
    distance = (weight * (x0 - x0_estimate)) ** 2
    excess = log_variance - lower
    divergence = 0.5 * (excess - 1 + torch.exp(-excess) + distance * torch.exp(-log_variance))
    scale = schedule.input_scale
    decoder = _decoder_nll(x0 / scale, x0_estimate / scale, log_variance - 2 * math.log(scale))
    return torch.where(t.view(-1, 1, 1, 1) == 0, decoder, divergence)


def _step_tables(schedule: NoiseSchedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weight of x0 in the mean of q(x_{t-1} | x_t, x0), log beta_t, log beta~_t; float64[T]."""
    abar = schedule.alphas_cumprod
    before = np.append(1.0, abar[:-1])
    beta = 1 - abar / before
    beta_tilde = beta * (1 - before) / (1 - abar)
    beta_tilde[0] = beta_tilde[1]  # zero at t = 0, where it is only the lower end of v's range
    return np.sqrt(before) * beta / (1 - abar), np.log(beta), np.log(beta_tilde)


def _decoder_nll(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log p(x0 | x_1) of an 8-bit level in [-1, 1] (Ho et al. 2020, eq. 13); nats."""
    inverse = torch.exp(-log_variance / 2)
    above = torch.special.ndtr((x0 + 1 / 255 - mean) * inverse)
    below = torch.special.ndtr((x0 - 1 / 255 - mean) * inverse)
    above = torch.where(x0 > 0.999, torch.ones_like(above), above)
    below = torch.where(x0 < -0.999, torch.zeros_like(below), below)
    return -torch.log((above - below).clamp(min=1e-12))
