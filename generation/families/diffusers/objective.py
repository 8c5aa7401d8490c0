"""What a LoRA of a text-to-image model learns by: what the model itself learned by.

A U-Net: the noise, or v, at a step of its scheduler's noise schedule (Ho et al. 2020; Salimans & Ho
2022). A transformer of a flow: the velocity of a straight path (Liu et al. 2022), at a time whose
logit is standard normal (Esser et al. 2024, section 3.1, rf/lognorm(0.00, 1.00)).

    x_t = (1 - t) x + t eps;    L = E ||eps - x - v_theta(x_t, t)||^2
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from generation.families.diffusers.latents import SeenLatents
from generation.families.diffusers.network import LoraNetwork
from generation.training.data.images import DrawnImages
from generation.training.denoising import NoisyTraining
from generation.training.loop.objective import Modules, Update

NETWORK = "network"


@dataclass(frozen=True)
class FlowTraining:
    """null_condition: what a share `condition_dropout` of the conditions becomes."""

    null_condition: int
    condition_dropout: float

    def loss(self, network: Callable[..., Tensor], drawn: DrawnImages) -> Tensor:
        """Mean squared error of the velocity."""
        clean = drawn.images
        time, noise = drawn.rng.normal().sigmoid(), drawn.rng.normal(*clean.shape[1:])
        dropped = drawn.rng.uniform() < self.condition_dropout
        condition = drawn.conditions.masked_fill(dropped, self.null_condition)
        share = time.view(-1, 1, 1, 1)
        said = network((1 - share) * clean + share * noise, time, condition)
        return F.mse_loss(said.float(), noise - clean)


class LoraObjective:
    """The network, of which the adapter is trained, and its one update, logged as "loss"."""

    averaged = (NETWORK,)

    def __init__(
        self, network: LoraNetwork, latents: SeenLatents, training: FlowTraining | NoisyTraining
    ) -> None:
        self.modules: Modules = {NETWORK: network}
        self.updates = (Update("loss", NETWORK, self._loss),)
        self._latents, self._training = latents, training

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        return self._training.loss(modules[NETWORK], self._latents.of(drawn))
