"""A GAN of two small networks on points of a plane."""

import math

import torch
from torch import Tensor, nn

from generation.training.loop.objective import Modules, Update
from generation.training.processes import seed_torch


class Points:
    """Real points on a ring and noise, from (step, process, part) alone."""

    def __init__(self, process: int = 0) -> None:
        self.process = process

    def batch(self, step: int, part: int) -> tuple[Tensor, Tensor]:
        seed_torch(1000 * step + 100 * self.process + part)
        angle = torch.rand(8) * 2 * math.pi
        return torch.stack([angle.cos(), angle.sin()], dim=1), torch.randn(8, 2)


class ToyGan:
    """Two networks, two optimizers, updated in turn; the discriminator has dropout."""

    averaged = ("generator",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: Modules = {
            "generator": nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)),
            "discriminator": nn.Sequential(
                nn.Linear(2, 8), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
            ),
        }
        self.updates = (
            Update("discriminator_loss", "discriminator", self.judged, rate=2.0),
            Update("generator_loss", "generator", self.fooled),
        )

    @staticmethod
    def judged(modules: Modules, batch: tuple[Tensor, Tensor]) -> Tensor:
        real, noise = batch
        judge = modules["discriminator"]
        made = modules["generator"](noise).detach()
        return (1 - judge(real)).relu().mean() + (1 + judge(made)).relu().mean()

    @staticmethod
    def fooled(modules: Modules, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -modules["discriminator"](modules["generator"](batch[1])).mean()
