"""Tiny recipes of VQ-VAE-2, and a saved untrained checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from generation.families.vq_vae_2.checkpoint import (
    Networks,
    new_priors,
    priors_config,
    save_autoencoder,
    save_networks,
)
from generation.families.vq_vae_2.checkpoint_files import HierarchyConfig
from generation.families.vq_vae_2.hierarchy import Hierarchy
from generation.families.vq_vae_2.recipe import (
    HierarchyRecipe,
    HierarchyShape,
    PriorRecipe,
    PriorShapes,
)
from tests.models.tiny_models import randomize

HIERARCHY = {"hidden": 8, "residual": 4, "blocks": 1, "codes": 12, "width": 4}
TOP = {"hidden": 8, "residual": 6, "layers": 2, "attention": 1, "heads": 2, "output": 1}
BOTTOM = {"hidden": 8, "residual": 6, "layers": 1, "told": 1, "kernel": 3}
PRIORS = {"top": TOP | {"dropout": 0.2}, "bottom": BOTTOM}
TRAINING = {"steps": 4, "batch": 8, "warmup": 1, "save_every": 2}
PROMPTS = ("apple", "pear", "plum")


def hierarchy_recipe(classes: str = "fashion-mnist", **changes: Any) -> HierarchyRecipe:
    """Of 16 px images in colour; changes: of its tables, by their names."""
    tables = {"stage": {"resolution": 16, "channels": 3}, "network": HIERARCHY}
    return HierarchyRecipe.model_validate(_content("vq-vae", classes, tables, changes))


def prior_recipe(
    autoencoder: Path | str, classes: str = "fashion-mnist", **changes: Any
) -> PriorRecipe:
    """On the codes of such an autoencoder."""
    stage = {"resolution": 16, "autoencoder": str(autoencoder), "codes": HIERARCHY["codes"]}
    tables = {"stage": stage, "network": PRIORS}
    return PriorRecipe.model_validate(_content("vq-vae-2", classes, tables, changes))


def _content(
    generator: str, classes: str, tables: dict[str, Any], changes: dict[str, Any]
) -> dict[str, Any]:
    content: dict[str, Any] = {"name": "tiny", "description": "tiny", "generator": generator}
    for table, own in (tables | {"training": TRAINING}).items():
        content[table] = own | changes.get(table, {})
    return content | {"classes": classes}


def tiny_hierarchy() -> Hierarchy:
    """In evaluation mode, its codes as far apart as latents are."""
    torch.manual_seed(0)
    network = Hierarchy(HierarchyShape.model_validate(HIERARCHY), 3)
    randomize(network, 0.3)
    for book in (network.top, network.bottom):
        book.vectors.normal_(0, 0.5)
    return network.eval().requires_grad_(False)


def tiny_networks(prompts: tuple[str, ...] = PROMPTS, resolution: int = 16) -> Networks:
    """With no weight left at zero."""
    shapes = PriorShapes.model_validate(PRIORS)
    torch.manual_seed(1)
    made = new_priors(shapes, codes=12, resolution=resolution, classes=len(prompts))
    priors = nn.ModuleDict(made)
    randomize(priors, 0.3)
    priors.eval().requires_grad_(False)
    return Networks(priors_config(shapes, prompts), resolution, tiny_hierarchy(), priors)


def save_tiny_autoencoder(folder: Path, resolution: int = 16) -> Path:
    """As its training leaves it."""
    save_autoencoder(tiny_hierarchy(), _about(resolution), folder)
    return folder


def save_tiny(folder: Path, prompts: tuple[str, ...] = PROMPTS, resolution: int = 16) -> Path:
    """As the training of the priors leaves it."""
    save_networks(tiny_networks(prompts, resolution), _about(resolution), folder)
    return folder


def _about(resolution: int) -> HierarchyConfig:
    return HierarchyConfig(HierarchyShape.model_validate(HIERARCHY), resolution, 3)
