"""What a family of generators implements so that `finetune-generator` trains it.

A module of the family's folder, named in TRAINED of `generation/families/__init__.py`. To import it
is to import no torch: a recipe is read, and refused, at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from generation.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    import numpy as np
    from accelerate import PartialState

    from generation.training.data.training_set import TrainingSet
    from generation.training.loop.learner import Snapshot
    from generation.training.loop.objective import Objective, TrainingData
    from generation.training.memory import TrainingMemory


@dataclass(frozen=True)
class StartFacts:
    """What a record says of the checkpoint that a training starts from; the defaults: of none.

    sha256: of the files that decide its weights. saw_tuning: whether it says that it learned from
    the tuning images.
    """

    sha256: str | None = None
    saw_tuning: bool = False


class Course(Protocol):
    """A training that is about to begin: what is trained, what on, and what it leaves."""

    @property
    def objective(self) -> "Objective[Any]": ...
    @property
    def data(self) -> "TrainingData[Any]": ...

    def save(self, snapshot: "Snapshot", folder: Path) -> None:
        """Write a checkpoint that the family's generator loads."""

    def samples(self, snapshot: "Snapshot") -> "np.ndarray":
        """uint8[H,W,3]: a grid of images that the network makes now, a row a class."""


class Trainable(Protocol):
    """start: what --from names, None for nothing. All raise UserError where they say so.

    RECIPE: the family's training recipe. with_start: the recipe, completed by what its start has;
    refuses one that does not fit. sides: of the images it learns from, in px, its own first, its
    parents' second. memory: what a training takes, in each of so many processes; refuses a network
    that cannot be. with_images: the recipe for such images, of the release of that name.
    start_facts: of the checkpoint it starts from. course: the training on the images, whose views
    are in the order of `sides`. A family whose starts may be out of reach also has
    `planned(recipe, start)`: what `with_start` gives, of what is known without fetching anything,
    for a dry run. One that learns from latents as well as from images has `LATENTS`, True.
    """

    @property
    def RECIPE(self) -> type[TrainingRecipe]: ...  # noqa: N802 - a module's constant

    def with_start(self, recipe: Any, start: str | None) -> Any: ...
    def sides(self, recipe: Any) -> tuple[int, ...]: ...
    def memory(self, recipe: Any, processes: int) -> "TrainingMemory": ...
    def with_images(self, recipe: Any, images: "TrainingSet", source: str) -> Any: ...
    def start_facts(self, start: str | None) -> StartFacts: ...
    def course(
        self,
        recipe: Any,
        start: str | None,
        images: "TrainingSet",
        processes: "PartialState",
    ) -> Course: ...
