"""A network bound to its classes and parents, as the sampler calls it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generation.denoisers.network import Denoiser
from generation.diffusion import sampler
from generation.diffusion.guidance import always, autoguided, guided
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import acting


def bound_denoiser(
    network: Denoiser,
    guide: Denoiser | None,
    prompts: list[str],
    settings: SamplerConfig,
    parent: Tensor | None,
) -> sampler.Denoiser:
    """`network` bound to a batch: guided by `guide`, else by itself, told no class."""
    schedule = NoiseSchedule(network.config.stage.schedule)
    acts = acting(schedule, settings)

    def bound(one: Denoiser, weight: float) -> sampler.Denoiser:
        condition = one.conditions(prompts).to(next(one.parameters()).device)
        return class_denoiser(one, schedule, condition, weight, parent, acts)

    if guide is None:
        return bound(network, settings.guidance)
    return autoguided(bound(network, 1.0), bound(guide, 1.0), settings.guidance, acts)


def class_denoiser(
    network: Denoiser,
    schedule: NoiseSchedule,
    condition: Tensor,
    guidance: float,
    parent: Tensor | None,
    acts: Callable[[int], bool] = always,
) -> sampler.Denoiser:
    """With classifier-free guidance where it `acts`; what the network carries goes from one step to
    the next."""
    table = torch.from_numpy(schedule.log_snr).float().to(condition.device)

    def evaluate(
        x: Tensor, t: Tensor, told: Tensor, parents: Tensor | None, carried: Any
    ) -> tuple[Tensor, Any]:
        answer: tuple[Tensor, Any] = network(x, table[t], told, parents, carried)
        return answer

    return guided(evaluate, condition, network.null_condition, guidance, parent, acts)
