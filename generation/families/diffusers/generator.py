"""Any text-to-image pipeline of diffusers, by its name on the Hub (with a revision) or a folder.

The pipeline's own loop and scheduler run: the recipe's sampler is method "native" with steps and
guidance. Each image has its own random generator on the CPU, so it does not depend on its
neighbours. Safety checkers are left out; what a licence asks of them is for the recipe to say. A
model that brings its own code is refused.

A LoRA that `finetune-generator` trained is a checkpoint, too: a folder with its weights and
`finetuned.json`, which names the pipeline that it changes. The whole of that must be in reach, and
be the one that it was trained on.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing, multiple_of
from generation.pretrained.diffusers_folder import (
    INDEX,
    OTHERWISE,
    file_sha256,
    index_components,
    latent_step,
    locate_model,
    model_sha256,
)
from generation.pretrained.finetuned import FINE_TUNED, fine_tuned
from release.errors import UserError
from release.files.commit import sha256_text

NAME = "diffusers"
LORA_FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it


def locate(checkpoint: str, otherwise: str = OTHERWISE) -> Path:
    """The model's folder: a local one, else the Hub's cache, else fetched from the Hub.

    otherwise: what else a user can do about one that is out of reach.
    """
    folder = Path(checkpoint)
    told = fine_tuned(folder)
    if told is None:
        return locate_model(checkpoint, None, otherwise)
    if told.generator != NAME:
        raise UserError(f"{checkpoint} is a checkpoint of {told.generator}, not of {NAME}")
    if not (folder / LORA_FILE).is_file():
        raise UserError(f"{checkpoint} is not a whole checkpoint: no {LORA_FILE} there")
    _require_whole(folder / LORA_FILE)
    base_folder(folder)
    return folder


def _require_whole(path: Path) -> None:
    """UserError for a file of weights that is cut: before a build, not when a worker reads it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is cut or damaged: {error}") from None


def base_folder(folder: Path) -> Path:
    """The pipeline itself; of a LoRA the one that it changes.

    UserError if that is out of reach, or not the one that it was trained on.
    """
    told = fine_tuned(folder)
    if told is None:
        return folder
    try:
        base = locate_model(told.base.checkpoint, None)
    except UserError as error:
        raise UserError(f"{folder} changes a model that it does not hold: {error}") from None
    if sha256(base) != told.base.sha256:
        raise UserError(
            f"{folder} was trained on another model than {base} is now: {FINE_TUNED} has its hash"
        )
    return base


def sha256(folder: Path) -> str:
    """One hash over the pipeline's index and every component it loads, and over a LoRA of it."""
    told = fine_tuned(folder)
    if told is not None:
        return sha256_text(f"{file_sha256(folder / LORA_FILE)} {told.base.sha256}")
    parts = file_sha256(folder / INDEX) + model_sha256(folder, index_components(folder))
    return hashlib.sha256(parts.encode()).hexdigest()


def trained_resolution(folder: Path) -> int | None:
    """Side in px of what a LoRA learned from; None for a folder that holds none trained here."""
    told = fine_tuned(folder)
    return told.resolution if told is not None and told.generator == NAME else None


def methods() -> tuple[str, ...]:
    """The sampler methods that it takes."""
    return ("native",)


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps it from being a first stage of `resolution` px."""
    if folder is None:
        return from_nothing(parent)
    return from_nothing(parent) or multiple_of(latent_step(base_folder(folder)), resolution)


def load(folder: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU; networks load when used.

    On a GPU a LoRA runs in the precision of its training.
    """
    from generation.families.diffusers.pipeline import PipelineGenerator
    from generation.networks.placement import best_placement

    told, placement = fine_tuned(folder), best_placement(compiled)
    if told is None:
        return PipelineGenerator(folder, placement)
    return PipelineGenerator(base_folder(folder), placement.on_gpu(told.precision), lora=folder)


def load_fp8(folder: Path, compiled: bool) -> Generator:
    """The same, the transformer's blocks in fp8, all else in bfloat16; UserError for a LoRA, whose
    adapter would be added to weights that are rounded to fewer digits than it was trained on."""
    import torch

    from generation.families.diffusers.pipeline import PipelineGenerator
    from generation.networks.placement import best_placement

    if fine_tuned(folder) is not None:
        raise UserError(f"{folder} is a LoRA, which does not run in fp8: leave precision out")
    placement = best_placement(compiled)
    return PipelineGenerator(folder, replace(placement, dtype=torch.bfloat16, fp8=True))


def work(checkpoint: str, resolution: int) -> Work | None:
    """What an image of a published model takes."""
    from generation.families.diffusers.work import pipeline_work

    told = fine_tuned(Path(checkpoint))
    return pipeline_work(told.base.checkpoint if told else checkpoint, resolution)
