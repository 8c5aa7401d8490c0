"""SimCLR: features learned from two views of each image, without labels (Chen et al. 2020).

A linear classifier of the features learns the labels meanwhile. No gradient of it reaches the
features, so it only tells what they are worth.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.objective import MODEL, LabelledPart
from generation.training.loop.objective import Modules, Update
from release.errors import UserError


class SimclrModel(nn.Module):
    """network: a timm classifier; beside it the projection head, which is left behind."""

    def __init__(self, network: nn.Module, recipe: ClassifierRecipe) -> None:
        super().__init__()
        self.network = network
        classifier = network.get_classifier()  # type: ignore[operator]
        if not isinstance(classifier, nn.Linear):
            raise UserError(
                f"classifier recipe {recipe.name}: {recipe.model} has no linear classifier, which "
                'objective = "simclr" learns beside its features'
            )
        width = classifier.in_features
        hidden = recipe.simclr.hidden or width
        self.projection = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, recipe.simclr.projection)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32[B,C,H,W] => projections [B,P] and logits [B,classes] of the features alone."""
        network: Any = self.network
        features = network.forward_head(network.forward_features(images), pre_logits=True)
        return self.projection(features), network.get_classifier()(features.detach())


class SimclrObjective:
    """The contrastive loss of the projections, and the cross-entropy of the classifier beside."""

    averaged = (MODEL,)

    def __init__(self, model: nn.Module, recipe: ClassifierRecipe) -> None:
        self.modules: Modules = {MODEL: SimclrModel(model, recipe)}
        self.updates = (Update("loss", MODEL, self._loss),)
        self._temperature = recipe.simclr.temperature
        self._smoothing = recipe.label_smoothing

    def _loss(self, modules: Modules, part: LabelledPart) -> Tensor:
        projected, logits = modules[MODEL](part.images)
        beside = F.cross_entropy(logits, part.targets, label_smoothing=self._smoothing)
        return nt_xent(projected, self._temperature) + beside


def nt_xent(projected: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss of float[2N,P], in which row i and row i + N are views of one image (eq. 1).

    Mean over all 2N views of -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t)), s the cosine
    of two projections, j the other view of i's image.
    """
    units = F.normalize(projected.float(), dim=1)
    alike = units @ units.T / temperature
    itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
    other = torch.arange(len(units), device=units.device).roll(len(units) // 2)
    return F.cross_entropy(alike.masked_fill(itself, float("-inf")), other)
