"""Batch normalisation apart for the generated half of each batch (Xie et al. 2020, section 4.2)."""

import copy

from torch import nn

from classifiers.recipes.recipe import ClassifierRecipe
from release.errors import UserError

AUXILIARY = ".aux_bn."  # in the names of what timm adds to a network


def with_auxiliary(model: nn.Module, processes: int, recipe: ClassifierRecipe) -> nn.Module:
    """A copy of `model` whose batch normalisation takes the second half of a batch apart.

    UserError for a model without batch normalisation, or a batch whose halves the processes cannot
    share.
    """
    from timm.layers.split_batchnorm import convert_splitbn_model

    if not any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        raise UserError(
            f'classifier recipe {recipe.name}: mixing.batch_norm = "separate", but {recipe.model} '
            "has no batch normalisation"
        )
    if recipe.batch % (2 * processes):
        raise UserError(
            f"classifier recipe {recipe.name}: the halves of batch = {recipe.batch} do not divide "
            f"over {processes} processes"
        )
    split: nn.Module = convert_splitbn_model(copy.deepcopy(model))
    return split


def without_auxiliary(trained: nn.Module, plain: nn.Module) -> nn.Module:
    """`plain` with the weights of `trained`, less what was the generated images'."""
    own = {name: value for name, value in trained.state_dict().items() if AUXILIARY not in name}
    plain.load_state_dict(own)
    return plain
