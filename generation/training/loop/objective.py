"""What the training loop is handed: an objective, which says what is learned, and its data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)
Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Update(Generic[Batch]):
    """One of the updates of a step: module `trains` goes down the gradient of `loss`.

    name: what its losses are logged by, such as "loss" or "generator_loss"; each has its own.
    loss: of the modules and a part of a batch, the mean over its images, one number. `trains` is
    given as what keeps it the same in all processes, the other modules as they are, without
    gradients. rate: times the learning rate (Heusel et al. 2017 give two networks two rates).
    """

    name: str
    trains: str
    loss: Callable[[Modules, Batch], Tensor]
    rate: float = 1.0


class Objective(Protocol[Batch]):
    """What a family of networks learns by.

    modules: those that are trained, by name, each with an optimizer of its own. updates: of one
    step, in their order; two may train the same module, as a GAN's discriminator is trained twice
    for each update of its generator. averaged: the modules whose average is kept (EMA).
    """

    @property
    def modules(self) -> Modules: ...
    @property
    def updates(self) -> Sequence[Update[Batch]]: ...
    @property
    def averaged(self) -> Sequence[str]: ...


class TrainingData(Protocol[Batch_co]):
    """What is learned from, as one process of a training sees it.

    `batch` follows from (step, process, part) alone, so that a training goes on exactly where it
    stopped; where an image's random numbers follow from its place in the batch of all processes
    (ImageBatches), also on another number of processes. It seeds torch's generators and sets the
    numbers of ImageDropout: what is random in the networks follows, too. part counts what the
    process takes in a step: the parts of the first update's batch, then those of the second's.
    Asked for in that order, step by step.
    """

    def batch(self, step: int, part: int) -> Batch_co: ...
