"""What all of these networks learn by: to say how an image became noise, told its class."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from generation.denoisers.loss_history import LossHistory
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserRecipe
from generation.diffusion.losses import NoisyImages
from generation.diffusion.schedule import NoiseSchedule
from generation.training.data.images import DrawnImages, to_signal
from generation.training.loop.objective import Modules, Update

NETWORK = "network"


@dataclass(frozen=True)
class Question:
    """What a network is asked, on the images' device: the arguments of Denoiser.forward, by name.

    noisy: the images that were made noisy; target: what the network is to say of them. weights:
    float32[N] of their losses, where steps are not drawn alike.
    """

    noisy: NoisyImages
    x: Tensor
    log_snr: Tensor
    condition: Tensor
    parent: Tensor | None
    target: Tensor
    weights: Tensor | None = None

    def put_to(self, network: nn.Module, carried: Tensor | None = None) -> tuple[Tensor, Any]:
        """The network's answer in float32, and what it would hand to its next call."""
        said, after = network(self.x, self.log_snr, self.condition, self.parent, carried)
        return said.float(), after


# A family's loss: of its network and the images that were drawn, with what it needs to ask.
Loss = Callable[[nn.Module, DrawnImages, "Questions"], Tensor]


@dataclass(frozen=True)
class Questions:
    """How the images of a recipe become questions to a network with `null` as its null class.

    history: by which steps are drawn; without one all are alike in probability.
    """

    recipe: DenoiserRecipe
    null: int
    history: LossHistory | None = None

    @cached_property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule(self.recipe.stage.schedule)

    @cached_property
    def _log_snr(self) -> Tensor:
        return torch.from_numpy(self.schedule.log_snr)

    def draw(self, drawn: DrawnImages) -> Question:
        """Each image at a step of the schedule's table."""
        if self.history is None:
            return self._at_table(
                drawn, NoisyImages.draw(self.clean(drawn), self.schedule, drawn.rng)
            )
        t, weights = self.history.draw(drawn.rng.uniform())
        noisy = NoisyImages.at(t, self.clean(drawn), self.schedule, drawn.rng)
        return replace(self._at_table(drawn, noisy), weights=weights)

    def mean(self, losses: Tensor, question: Question) -> Tensor:
        """Of the images' losses, float32[N], each with its weight; the history notes them."""
        if question.weights is None or self.history is None:
            return losses.mean()
        self.history.note(question.noisy.t, losses)
        return (question.weights * losses).mean()

    def _at_table(self, drawn: DrawnImages, noisy: NoisyImages) -> Question:
        return self.about(drawn, noisy, self._log_snr.to(noisy.t.device)[noisy.t].float())

    def clean(self, drawn: DrawnImages) -> Tensor:
        """float32[N,C,H,W]: the images in [-1, 1], times the schedule's input scale."""
        return to_signal(drawn.images) * self.schedule.input_scale

    def about(self, drawn: DrawnImages, noisy: NoisyImages, log_snr: Tensor) -> Question:
        """Of images already made noisy, log_snr float32[N]; a share of the classes is dropped."""
        condition = self.told(drawn)
        parent = None if drawn.parents is None else to_signal(drawn.parents)
        target = noisy.target(self.recipe.stage.prediction)
        return Question(noisy, noisy.x, log_snr, condition, parent, target)

    def told(self, drawn: DrawnImages) -> Tensor:
        """int64[N]: the conditions, of which a share is dropped."""
        dropped = drawn.rng.uniform() < self.recipe.training.class_dropout
        return drawn.conditions.masked_fill(dropped, self.null)


class DenoiserObjective:
    """A network, and its one update, which is logged as "loss"."""

    averaged = (NETWORK,)

    def __init__(self, network: Denoiser, recipe: DenoiserRecipe, loss: Loss) -> None:
        self.modules: Modules = {NETWORK: network.requires_grad_(True)}
        self.updates = (Update("loss", NETWORK, self._loss),)
        self._questions = Questions(recipe, network.null_condition, network.history)
        self._of_family = loss

    def _loss(self, modules: Modules, drawn: DrawnImages) -> Tensor:
        return self._of_family(modules[NETWORK], drawn, self._questions)
