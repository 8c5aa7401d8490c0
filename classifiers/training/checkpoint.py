"""A trained classifier on disk: safetensors with its recipe and class list in the header."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers.recipes.recipe import ClassifierRecipe
from generation.networks.timm_classifier import load_network, read_classifier, read_header
from release.errors import UserError
from release.files.checked_files import read_weights, weights_to_bytes
from release.files.commit import write_atomically

if TYPE_CHECKING:
    from torch import nn


def save_classifier(
    path: Path, model: "nn.Module", recipe: ClassifierRecipe, class_ids: tuple[str, ...]
) -> None:
    """Write the weights; class_ids are what the logits stand for, in order.

    Equal weights, recipe and classes make equal bytes: accept rules know a classifier by them.
    """
    header = {"recipe": recipe.record(), "class_ids": json.dumps(class_ids)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomically(path, weights_to_bytes(tensors, header))


def load_classifier(path: Path) -> tuple["nn.Module", ClassifierRecipe, tuple[str, ...]]:
    """The model in evaluation mode on the CPU, its recipe and class ids.

    Raises UserError if `path` is no file that `save_classifier` wrote.
    """
    model = load_network(path)
    _, class_ids = read_classifier(path)
    return model, read_recipe(path), class_ids


def read_recipe(path: Path) -> ClassifierRecipe:
    """The recipe that a saved classifier was trained by; UserError if `path` is no such file."""
    read_classifier(path)
    return ClassifierRecipe.model_validate_json(read_header(path)["recipe"])


def start_from(path: Path, model: "nn.Module", class_ids: tuple[str, ...]) -> None:
    """Give `model` the weights of a saved classifier; a transformer's positions are resampled.

    Raises UserError if it is damaged, of another model or has other classes.
    """
    from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]

    about, saved_ids = read_classifier(path)
    if saved_ids != class_ids:
        raise UserError(f"--from {path} was trained on other classes than --train has")
    weights = read_weights(path)
    mine: Any = getattr(model, "pos_embed", None)
    if mine is not None and weights.get("pos_embed", mine).shape != mine.shape:
        patched: Any = model
        weights["pos_embed"] = resample_abs_pos_embed(
            weights["pos_embed"],
            new_size=list(patched.patch_embed.grid_size),
            num_prefix_tokens=patched.num_prefix_tokens,
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--from {path} holds another model, {about.model}: {reason}") from None
