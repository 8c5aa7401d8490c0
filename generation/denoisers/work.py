"""What a family's networks take of arithmetic, before there are weights."""

from pathlib import Path

import torch
from torch import Tensor

from generation.denoisers.checkpoint_files import is_of, read_config
from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, config_of
from generation.networks.flops import counted_flops
from generation.training.recipe import BUILTIN
from release.classes.class_list import load_classes
from release.commands.toml_recipes import load_toml, setting_in

KIND = "training recipe"
COLOUR = 3  # channels of a stage whose data has not been seen yet


def planned_config(family: Family, checkpoint: str) -> DenoiserConfig | None:
    """Of the checkpoint's own folder, else of the built-in training recipe NAME where that is
    runs/NAME/checkpoint; None for any other."""
    folder = Path(checkpoint)
    if is_of(family, folder):
        return read_config(family, folder)
    name = folder.parent.name
    if not (BUILTIN / f"{name}.toml").is_file():
        return None
    if setting_in(KIND, BUILTIN, name, "generator") != family.name:
        return None
    recipe = load_toml(family.recipe, KIND, BUILTIN, name)
    prompts = tuple(entry.prompt for entry in load_classes(recipe.classes))
    return config_of(recipe, prompts, COLOUR)


def evaluation_flops(family: Family, config: DenoiserConfig) -> int:
    """Of one call for one image."""
    stage = config.stage
    with torch.device("meta"):
        network = family.network(config)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(1, *shape, dtype=dtype)

        low = stage.low_resolution
        parent = None if low is None else zeros(config.channels, low, low)
        told = zeros(dtype=torch.int64)
        return counted_flops(lambda: network(zeros(*network.seen), zeros(), told, parent))
