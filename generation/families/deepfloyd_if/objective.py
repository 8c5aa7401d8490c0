"""What a stage of DeepFloyd IF learns by: to say how an image became noise, and how surely.

As it was trained: epsilon, the hybrid loss of Nichol & Dhariwal 2021 for the variance, Imagen's
noise conditioning augmentation (Saharia et al. 2022, section 2.4) for the second stage, in whose
pipelines a parent is enlarged first and noised then.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from generation.diffusion.losses import NoisyImages
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule
from generation.families.deepfloyd_if.network import IFNetwork
from generation.families.deepfloyd_if.pipeline import enlarge
from generation.families.deepfloyd_if.recipe import IFTraining
from generation.training.data.images import DrawnImages, to_signal
from generation.training.denoising import NoisyTraining
from generation.training.loop.objective import Modules, Update

NETWORK = "network"


@dataclass(frozen=True)
class StageSchedules:
    """How images become noise, what the network says of it, and how its parents do, if any."""

    images: NoiseSchedule
    prediction: Prediction
    parents: NoiseSchedule | None


@dataclass(frozen=True)
class IFNoise(NoisyTraining):
    """parent_schedule: that noises the parents, None for a first stage."""

    parent_schedule: NoiseSchedule | None = None

    def _parents(self, drawn: DrawnImages) -> list[Tensor]:
        """The parents enlarged and noised to a step of their own, and that step."""
        if drawn.parents is None or self.parent_schedule is None:
            return []
        image = enlarge(to_signal(drawn.parents), drawn.images.shape[-1])
        steps = self.parent_schedule.num_steps
        highest = min(round(self.max_augmentation * steps), steps - 1)
        level = drawn.rng.integers(highest + 1)
        noise = drawn.rng.normal(*image.shape[1:])
        table = torch.from_numpy(self.parent_schedule.alphas_cumprod).float().to(image.device)
        abar = table[level].view(-1, 1, 1, 1)
        return [NoisyImages(image, noise, level, abar.sqrt(), (1 - abar).sqrt()).x, level]


class IFObjective:
    """The stage's U-Net, and its one update, which is logged as "loss"."""

    averaged = (NETWORK,)

    def __init__(
        self,
        network: IFNetwork,
        schedules: StageSchedules,
        config: IFTraining,
    ) -> None:
        self.modules: Modules = {NETWORK: network.requires_grad_(True)}
        self.updates = (Update("loss", NETWORK, self._loss),)
        self._training = IFNoise(
            schedules.prediction,
            schedules.images,
            null_condition=network.prompts.null,
            condition_dropout=config.caption_dropout,
            max_augmentation=config.max_augmentation,
            parent_schedule=schedules.parents,
        )

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        return self._training.loss(modules[NETWORK], drawn)
