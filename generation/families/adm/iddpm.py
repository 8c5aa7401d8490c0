"""Improved DDPM at 64 px (Nichol & Dhariwal 2021): 4 heads, the legacy order, T = 4000."""

from pathlib import Path

from generation.families import Generator
from generation.families.image_sizes import from_nothing
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file

SOURCE = "the model list in the README of openai/improved-diffusion"


def locate(checkpoint: str) -> Path:
    """The file named, or the one of that name in the model cache."""
    return locate_file(checkpoint, SOURCE)


def sha256(file: Path) -> str:
    """The hash of the checkpoint file, as downloaded."""
    return file_sha256(file)


def size_problem(_file: Path | None, _resolution: int, parent: int | None) -> str | None:
    """What keeps it from following a stage of `parent` px."""
    return from_nothing(parent)


def load(file: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU."""
    from generation.families.adm.sampling import IDDPM, GuidedDiffusion
    from generation.networks.placement import best_placement

    return GuidedDiffusion(file, IDDPM, best_placement(compiled))
