"""What a pixel U-Net learns by: to say how an image became noise, told a condition and a parent."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generation.diffusion.losses import NoisyImages, denoising_loss
from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule
from generation.families.pixel_unet.network import PixelUNet, augment, split_variance
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.images import DrawnImages, to_signal
from generation.training.objective import Modules, Update

NETWORK = "network"


class PixelUNetObjective:
    """The network of a stage, and its one update, which is logged as "loss"."""

    averaged = (NETWORK,)

    def __init__(self, network: PixelUNet, config: PixelUNetTraining, device: torch.device) -> None:
        self.modules: Modules = {NETWORK: network.requires_grad_(True)}
        self.updates = (Update("loss", NETWORK, self._loss),)
        self._training = NoisyTraining(
            network.config.prediction,
            NoiseSchedule(network.config.schedule),
            null_condition=len(network.prompts.prompts) - 1,
            config=config,
            device=device,
        )

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        return self._training.loss(modules[NETWORK], drawn)


@dataclass(frozen=True)
class NoisyTraining:
    """How images are made noisy for a network, and its loss.

    null_condition: the one that dropped captions become. device: where the network is.
    """

    prediction: Prediction
    schedule: NoiseSchedule
    null_condition: int
    config: PixelUNetTraining
    device: torch.device

    def loss(self, network: Callable[..., Tensor], drawn: DrawnImages) -> Tensor:
        """Mean squared error, and the hybrid term where the network gives its variance."""
        x0 = to_signal(drawn.images) * self.schedule.input_scale
        noisy = NoisyImages.draw(x0, self.schedule, drawn.rng)
        inputs = [noisy.x, noisy.t, self._conditions(drawn), *self._parents(drawn)]
        out = network(*(tensor.to(self.device) for tensor in inputs)).float()
        said, v = split_variance(out, x0.shape[1])
        return denoising_loss(said, v, noisy, self.prediction, self.schedule)

    def _conditions(self, drawn: DrawnImages) -> Tensor:
        """int64[N]: a share is dropped, for classifier-free guidance."""
        dropped = drawn.rng.random(len(drawn.conditions)) < self.config.caption_dropout
        conditions = drawn.conditions.clone()
        conditions[torch.from_numpy(dropped)] = self.null_condition
        return conditions

    def _parents(self, drawn: DrawnImages) -> list[Tensor]:
        """Parents with noise of a random level in them, and that level as the network is told it;
        nothing for a base stage."""
        if drawn.parents is None:
            return []
        parent = to_signal(drawn.parents)
        level = torch.from_numpy(drawn.rng.random(len(parent)) * self.config.max_augmentation)
        noise = torch.from_numpy(drawn.rng.standard_normal(parent.shape, dtype=np.float32))
        return [augment(parent, noise, level), (level * self.schedule.num_steps).float()]
