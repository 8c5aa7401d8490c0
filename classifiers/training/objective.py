"""What a classifier learns by, and its batches in the parts that a device takes at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classifiers.data.batches import Batches, Part
from classifiers.recipes.recipe import ClassifierRecipe
from generation.training.data.order import derived_seed
from generation.training.loop.objective import Modules, Update
from generation.training.processes import seed_torch as set_generators

MODEL = "model"


@dataclass(frozen=True)
class LabelledPart:
    """images float32[B,C,H,W]; targets int64[B], or float32[B,classes] if mixed; share: B over the
    images of the batch that is taken in parts."""

    images: Tensor
    targets: Tensor
    share: float = 1.0


class ClassifierObjective:
    """Cross-entropy of the classes, with soft targets where images are mixed; beside it that of
    what a teacher says of the same images, where the recipe has one."""

    averaged = (MODEL,)

    def __init__(
        self, model: nn.Module, recipe: ClassifierRecipe, teacher: nn.Module | None = None
    ) -> None:
        self.modules: Modules = {MODEL: model}
        self.updates = (Update("loss", MODEL, self._loss),)
        self._smoothing = recipe.label_smoothing
        self._told, self._teacher = recipe.teacher, teacher

    def _loss(self, modules: Modules, part: LabelledPart) -> Tensor:
        """Its share of the batch's mean: parts may differ in size."""
        logits = modules[MODEL](part.images)
        loss = F.cross_entropy(logits, part.targets, label_smoothing=self._smoothing)
        if self._told is not None and self._teacher is not None:
            with torch.no_grad():
                said = self._teacher(part.images)
            own = 1 - self._told.weight
            loss = own * loss + self._told.weight * soft_loss(logits, said, self._told.temperature)
        return loss * part.share if part.share < 1 else loss


def soft_loss(logits: Tensor, said: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy with the softmax of `said` (Hinton et al. 2015, section 2).

    logits, said: float[B,classes].
    """
    wanted = (said.float() / temperature).softmax(dim=1)
    return F.cross_entropy(logits.float() / temperature, wanted) * temperature**2


class ClassifierData:
    """A process's share of each batch, in `parts` parts.

    batches: opens those of a training that begins at a step, once that is known.
    """

    def __init__(
        self, batches: Callable[[int], Batches], seed: int, place: Part, parts: int
    ) -> None:
        self._open, self._batches = batches, None
        self._seed, self._parts = seed, parts
        self._purpose = [place.index] if place.of > 1 else []
        self._taken: list[LabelledPart] = []

    def batch(self, step: int, part: int) -> LabelledPart:
        """The first part of a step seeds torch, for what is random in its batch and the model."""
        if part == 0:
            self._taken = self._drawn(step)
        return self._taken[part]

    def _drawn(self, step: int) -> list[LabelledPart]:
        if self._batches is None:
            self._batches = self._open(step)
        seed_torch(self._seed, 1 + step, *self._purpose)
        return in_parts(*self._batches.batch(step), self._parts)

    _batches: Batches | None


def in_parts(images: Tensor, targets: Tensor, parts: int) -> list[LabelledPart]:
    """A batch in parts of about the same size."""
    if parts == 1:
        return [LabelledPart(images, targets)]
    pairs = zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True)
    return [LabelledPart(own, wanted, len(own) / len(images)) for own, wanted in pairs]


def parts_of(images: int, recipe: ClassifierRecipe) -> int:
    """In how many parts, alike in size, a device takes so many images."""
    return math.ceil(images / (recipe.micro_batch or images))


def seed_torch(seed: int, *purpose: int) -> None:
    """Set torch's generators from the run's seed and what the numbers are for."""
    set_generators(derived_seed(seed, *purpose))


def autocast(recipe: ClassifierRecipe, device: torch.device) -> torch.autocast:
    """The recipe's precision; weights stay float32."""
    low = recipe.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)
