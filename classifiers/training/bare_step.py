"""A classifier's training step by itself, whose batches are handed to it: to measure its speed."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.loop import loop_settings
from classifiers.training.objective import ClassifierObjective, LabelledPart, in_parts, parts_of
from generation.networks.timm_classifier import build_model
from generation.training.loop.learner import Learner
from generation.training.processes import launched_processes


class BareStep:
    """The updates of a new model of the recipe, for batches of so many images; no average.

    Where the recipe has a teacher, another new model is one.
    """

    def __init__(
        self, recipe: ClassifierRecipe, classes: int, device: torch.device, batch: int
    ) -> None:
        self.model: nn.Module = build_model(recipe, classes)
        self._parts = parts_of(batch, recipe)
        settings = replace(
            loop_settings(recipe, 1, device),
            parts=self._parts,
            rate=lambda _: recipe.learning_rate,
            decay=None,
        )
        teacher = None
        if recipe.teacher is not None:
            teacher = build_model(recipe, classes).eval().to(device)
        objective = ClassifierObjective(self.model, recipe, teacher)
        self._learner = Learner(objective, settings, launched_processes())
        self._given: list[LabelledPart] = []

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """One update; the loss before it, not waited for."""
        self._given = in_parts(images, targets, self._parts)
        return self._learner.step(self).sum()

    def batch(self, _: int, part: int) -> LabelledPart:
        """As the learner asks its data."""
        return self._given[part]
