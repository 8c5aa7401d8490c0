"""Tiny classifiers of noisy images: the recipe, a network, and it as a checkpoint."""

from pathlib import Path
from typing import Any

import torch

from generation.denoisers.checkpoint import save_checkpoint
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import config_of
from generation.families.noisy_classifier.family import FAMILY
from tests.models.tiny_denoisers import PROMPTS

TABLES: dict[str, dict[str, Any]] = {
    "stage": {
        "resolution": 16,
        "channels": 3,
        "schedule": {"name": "cosine", "num_steps": 100},
    },
    "network": {
        **{"base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8]},
        **{"head_width": 8, "dropout": 0.2},
    },
    "training": {"steps": 4, "batch": 8, "warmup": 1, "save_every": 2},
}


def tiny_recipe(classes: str = "fashion-mnist", **changes: dict[str, Any]) -> Any:
    """changes: of its tables, by their names."""
    tables = {name: table | changes.get(name, {}) for name, table in TABLES.items()}
    about = {"name": "tiny", "description": "classifier", "generator": FAMILY.name}
    return FAMILY.recipe.model_validate(about | {"classes": classes} | tables)


def tiny_classifier(prompts: tuple[str, ...] = PROMPTS, **changes: dict[str, Any]) -> Denoiser:
    """Untrained, and with no weight left at zero."""
    recipe = tiny_recipe(**changes)
    torch.manual_seed(0)
    network = FAMILY.network(config_of(recipe, prompts, 3))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network.eval().requires_grad_(False)


def save_tiny(folder: Path, prompts: tuple[str, ...] = PROMPTS, **changes: dict[str, Any]) -> Path:
    """A checkpoint of it."""
    save_checkpoint(FAMILY, tiny_classifier(prompts, **changes), folder)
    return folder
