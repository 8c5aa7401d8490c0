"""VQ-VAE-2's checkpoints on disk, without importing torch.

autoencoder.json, autoencoder.safetensors   what the first training writes, and the second copies
network.json, weights.safetensors           of the two priors
training.json, loss.csv, loss.png           how it was made; not part of the hash
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, TypeAdapter, ValidationError

from generation.families.vq_vae_2.recipe import HierarchyShape, PriorShapes
from generation.pretrained.source_files import files_sha256
from release.errors import UserError

AUTOENCODER_CONFIG, AUTOENCODER_WEIGHTS = "autoencoder.json", "autoencoder.safetensors"
AUTOENCODER_FILES = (AUTOENCODER_CONFIG, AUTOENCODER_WEIGHTS)
CONFIG_FILE, WEIGHTS_FILE = "network.json", "weights.safetensors"
HASHED_FILES = (CONFIG_FILE, WEIGHTS_FILE, *AUTOENCODER_FILES)
GENERATOR = "vq-vae-2"


@dataclass(frozen=True)
class HierarchyConfig:
    """autoencoder.json: the shape, and side and channels of its images."""

    network: HierarchyShape
    resolution: PositiveInt
    channels: PositiveInt


@dataclass(frozen=True)
class PriorConfig:
    """network.json. classes: the prompts of those that the priors know, in their order."""

    generator: str
    network: PriorShapes
    classes: tuple[str, ...]

    def indices(self, prompts: list[str]) -> list[int]:
        """What the priors are told for images of `prompts`; UserError for a class they lack."""
        known = {prompt: i for i, prompt in enumerate(self.classes)}
        lacking = sorted({prompt for prompt in prompts if prompt not in known})
        if lacking:
            some = ", ".join(repr(prompt) for prompt in self.classes[:12])
            raise UserError(
                f"class {lacking[0]!r} is not among the {len(known)} that the checkpoint learned; "
                f"known: {some}"
            )
        return [known[prompt] for prompt in prompts]


def autoencoder_folder(name: str) -> Path:
    """UserError if there is no autoencoder of ours."""
    folder = Path(name)
    for file in AUTOENCODER_FILES:
        if not (folder / file).is_file():
            raise UserError(
                f"{name} is not a checkpoint of vq-vae: no {file} there; give the folder that "
                "finetune-generator wrote, OUT/checkpoint"
            )
    return folder


def autoencoder_sha256(folder: Path) -> str:
    """One hash over the files that decide codes and images."""
    return files_sha256(folder, AUTOENCODER_FILES)


def read_autoencoder(folder: Path) -> HierarchyConfig:
    """UserError for a damaged file."""
    found: HierarchyConfig = _read(TypeAdapter(HierarchyConfig), folder / AUTOENCODER_CONFIG)
    return found


def prior_folder(name: str) -> Path:
    """UserError if there is no checkpoint of the priors, or a part of it is missing."""
    folder = Path(name)
    for file in HASHED_FILES:
        if not (folder / file).is_file():
            raise UserError(
                f"{name} is not a checkpoint of {GENERATOR}: no {file} there; give the folder "
                "that finetune-generator wrote, OUT/checkpoint"
            )
    read_priors(folder)
    return folder


def read_priors(folder: Path) -> PriorConfig:
    """UserError for a damaged file."""
    found: PriorConfig = _read(TypeAdapter(PriorConfig), folder / CONFIG_FILE)
    return found


def is_ours(folder: Path) -> bool:
    """Whether the folder holds priors; one of another generator does not."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("generator") == GENERATOR


def _read(shape: TypeAdapter[Any], file: Path) -> Any:
    try:
        return shape.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is damaged: {reason}") from None
