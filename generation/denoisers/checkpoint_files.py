"""Checkpoints on disk, without importing torch.

network.json         DenoiserConfig, and the family whose it is
weights.safetensors  float32
training.json, loss.csv, loss.png   how it was made; not part of the hash
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from generation.denoisers.family import Family
from generation.denoisers.recipe import DenoiserConfig, config_from_json, config_of
from generation.pretrained.source_files import files_sha256
from generation.training.recipe import BUILTIN
from release.classes.class_list import load_classes
from release.commands.toml_recipes import load_toml, setting_in
from release.errors import UserError

CONFIG_FILE = "network.json"
WEIGHTS_FILE = "weights.safetensors"
HASHED_FILES = (CONFIG_FILE, WEIGHTS_FILE)
KIND = "training recipe"
COLOUR = 3  # channels of a stage whose data has not been seen yet


def resolve(family: Family, name: str) -> Path:
    """The folder of a checkpoint; UserError if it is none of this family's."""
    folder = Path(name)
    for file in HASHED_FILES:
        if not (folder / file).is_file():
            raise UserError(
                f"{name} is not a checkpoint of {family.name}: no {file} there; give the folder "
                "that finetune-generator wrote, OUT/checkpoint"
            )
    read_config(family, folder)
    return folder


def checkpoint_sha256(folder: Path) -> str:
    """One hash over the files that decide the pixels."""
    return files_sha256(folder, HASHED_FILES)


def read_config(family: Family, folder: Path) -> DenoiserConfig:
    """UserError for a damaged file, and for one of another family."""
    content = _content(folder)
    if content.get("generator") != family.name:
        raise UserError(
            f"{folder} is a checkpoint of {content.get('generator')}, not {family.name}"
        )
    try:
        return config_from_json(family.recipe, content)
    except (ValidationError, LookupError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder / CONFIG_FILE} is damaged: {reason}") from None


def is_of(family: Family, folder: Path) -> bool:
    """Whether the folder holds a checkpoint of this family; UserError for a damaged one."""
    return (folder / CONFIG_FILE).is_file() and _content(folder).get("generator") == family.name


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


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / CONFIG_FILE).read_bytes())
    except ValueError as error:
        raise UserError(f"{folder / CONFIG_FILE} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{folder / CONFIG_FILE} is damaged: it holds no JSON object")
    return content
