"""The classifier itself: a timm model, its stem fitted to small images where the recipe says so."""

import difflib
from typing import Any

from torch import nn

from classifiers.recipe import ClassifierRecipe
from generation.errors import UserError, unknown_name


def build_model(recipe: ClassifierRecipe, classes: int) -> nn.Module:
    """Untrained, float32[N,channels,H,W] => logits float32[N,classes].

    Raises UserError for a model timm does not have, arguments or a stem the model does not have.
    """
    import timm

    if not timm.is_model(recipe.model):
        close = difflib.get_close_matches(recipe.model, timm.list_models(), n=8, cutoff=0.3)
        raise unknown_name("timm model", recipe.model, close)
    arguments: dict[str, Any] = {
        "num_classes": classes,
        "in_chans": recipe.channels,
        **recipe.model_args,
    }
    try:
        model: nn.Module = timm.create_model(recipe.model, **arguments)
    except TypeError as error:
        raise UserError(f"classifier recipe {recipe.name}: model_args: {error}") from None
    if recipe.stem_stride is not None:
        _set_stem_stride(model, recipe, recipe.stem_stride)
    if not recipe.stem_pool:
        _remove_stem_pool(model, recipe)
    return model


def _set_stem_stride(model: nn.Module, recipe: ClassifierRecipe, stride: int) -> None:
    facts: Any = model.pretrained_cfg
    name = facts["first_conv"]  # timm's own note of where the first convolution is
    convolution = model.get_submodule(name) if isinstance(name, str) else None
    if not isinstance(convolution, nn.Conv2d):
        raise UserError(
            f"classifier recipe {recipe.name}: {recipe.model} has no single first convolution, "
            "so stem_stride cannot be set; leave it out"
        )
    convolution.stride = (stride, stride)


def _remove_stem_pool(model: nn.Module, recipe: ClassifierRecipe) -> None:
    if not isinstance(getattr(model, "maxpool", None), nn.MaxPool2d):
        raise UserError(
            f"classifier recipe {recipe.name}: {recipe.model} has no max-pooling after its stem; "
            "leave stem_pool out"
        )
    model.maxpool = nn.Identity()
