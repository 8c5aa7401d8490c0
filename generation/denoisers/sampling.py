"""A network bound to its classes and parents, as the sampler calls it."""

from typing import Any

import torch
from torch import Tensor

from generation.denoisers.network import Denoiser
from generation.diffusion import sampler
from generation.diffusion.guidance import guided
from generation.diffusion.schedule import NoiseSchedule


def class_denoiser(
    network: Denoiser,
    schedule: NoiseSchedule,
    condition: Tensor,
    guidance: float,
    parent: Tensor | None,
) -> sampler.Denoiser:
    """With classifier-free guidance; what the network carries goes from one step to the next."""
    table = torch.from_numpy(schedule.log_snr).float().to(condition.device)

    def evaluate(
        x: Tensor, t: Tensor, told: Tensor, parents: Tensor | None, carried: Any
    ) -> tuple[Tensor, Any]:
        answer: tuple[Tensor, Any] = network(x, table[t], told, parents, carried)
        return answer

    return guided(evaluate, condition, network.null_condition, guidance, parent)
