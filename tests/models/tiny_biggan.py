"""A tiny recipe of a BigGAN-deep, and its saved untrained generator."""

from pathlib import Path
from typing import Any

import torch

from generation.families.biggan.generator import CONFIG, TRAINED_WEIGHTS
from generation.families.biggan.normalisation import whole
from generation.families.biggan.objective import new_networks
from generation.families.biggan.recipe import BigGANRecipe
from generation.pretrained.diffusers_weights import tensor_file


def tiny_recipe(classes: str = "fashion-mnist", **changes: dict[str, Any]) -> BigGANRecipe:
    """Of 16 px images; changes: of its tables, by their names."""
    tables: dict[str, dict[str, Any]] = {
        "stage": {"resolution": 16},
        "network": {
            **{"z_dim": 8, "channel_width": 8, "attention": 2, "statistics": 3},
            "layers": [[False, 4, 4], [True, 4, 2], [True, 2, 1]],
            "discriminator": [[True, 1, 2], [False, 2, 2], [True, 2, 4]],
            "discriminator_attention": 1,
        },
        "training": {
            **{"steps": 4, "batch": 8, "warmup": 1, "save_every": 2, "standing_batches": 2}
        },
    }
    for table, change in changes.items():
        tables[table] = tables[table] | change
    about = {"name": "tiny", "description": "biggan", "classes": classes, "generator": "biggan"}
    return BigGANRecipe.model_validate(about | tables)


def save_tiny(folder: Path, classes: int, resolution: int = 16) -> Path:
    """As its training leaves it."""
    layers = [[False, 4, 4], [True, 4, 2], [True, 2, 1]]
    if resolution == 32:
        layers.append([True, 1, 1])
    changes = {"stage": {"resolution": resolution}, "network": {"layers": layers}}
    torch.manual_seed(0)
    network: Any = new_networks(tiny_recipe(**changes), classes)["generator"]
    done = whole(network, 1, 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINED_WEIGHTS).write_bytes(tensor_file(done.state_dict()))
    (folder / CONFIG).write_text(done.config.model_dump_json())
    return folder
