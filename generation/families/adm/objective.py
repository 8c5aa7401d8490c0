"""What OpenAI's U-Nets learn by: epsilon, and the hybrid loss of Nichol & Dhariwal 2021.

Told a class, never none. The upsampler sees its parent enlarged bilinearly, without noise in it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.networks import Network
from generation.families.adm.sampling import enlarge
from generation.training.data.images import DrawnImages, to_signal
from generation.training.denoising import NoisyTraining
from generation.training.loop.objective import Modules, Update

NETWORK = "network"


class LabelledUNet(nn.Module):
    """unet: diffusers' UNet2DModel, whose stubs do not let it be called."""

    unet: Any

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, label: Tensor, parent: Tensor | None = None) -> Tensor:
        """x float[N,3,H,W]; t, label int64[N]; parent float[N,3,h,w]. Returns float[N,6,H,W]."""
        inputs = x if parent is None else torch.cat([x, enlarge(parent, x.shape[-1])], dim=1)
        return self.unet(inputs, t, label, return_dict=False)[0]  # type: ignore[no-any-return]


class LabelledNoise(NoisyTraining):
    """Parents as they are."""

    def _parents(self, drawn: DrawnImages) -> list[Tensor]:
        return [] if drawn.parents is None else [to_signal(drawn.parents)]


class OpenAIObjective:
    """A stage's U-Net, and its one update, which is logged as "loss"."""

    averaged = (NETWORK,)

    def __init__(self, network: LabelledUNet, about: Network) -> None:
        self.modules: Modules = {NETWORK: network.requires_grad_(True)}
        self.updates = (Update("loss", NETWORK, self._loss),)
        self._training = LabelledNoise(
            "epsilon",
            NoiseSchedule(about.schedule),
            null_condition=0,  # no image becomes one
            condition_dropout=0.0,
            max_augmentation=0.0,
        )

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        return self._training.loss(modules[NETWORK], drawn)
