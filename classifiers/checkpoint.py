"""A trained classifier on disk: safetensors with its recipe and class list in the header."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from builder.commit import write_atomically
from classifiers.recipe import ClassifierRecipe
from generation.errors import UserError

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
    from safetensors import SafetensorError, safe_open

    from classifiers.model import build_model

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        recipe = ClassifierRecipe.model_validate_json(header["recipe"])
        class_ids = tuple(json.loads(header["class_ids"]))
        model = build_model(recipe, len(class_ids))
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValidationError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a classifier that this project saved: {reason}") from None
    return model.eval(), recipe, class_ids
