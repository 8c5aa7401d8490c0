"""A trained classifier on disk: safetensors with its recipe and class list in the header."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from builder.commit import write_atomically
from classifiers.recipe import ClassifierRecipe
from generation.timm_classifier import load_network, read_classifier, read_header

if TYPE_CHECKING:
    from torch import nn


def save_classifier(
    path: Path, model: "nn.Module", recipe: ClassifierRecipe, class_ids: tuple[str, ...]
) -> None:
    """Write the weights; class_ids are what the logits stand for, in order."""
    from safetensors.torch import save

    header = {"recipe": recipe.model_dump_json(), "class_ids": json.dumps(class_ids)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomically(path, save(tensors, metadata=header))


def load_classifier(path: Path) -> tuple["nn.Module", ClassifierRecipe, tuple[str, ...]]:
    """The model in evaluation mode on the CPU, its recipe and class ids.

    Raises UserError if `path` is no file that `save_classifier` wrote.
    """
    model = load_network(path)
    _, class_ids = read_classifier(path)
    recipe = ClassifierRecipe.model_validate_json(read_header(path)["recipe"])
    return model, recipe, class_ids
