"""Any text-to-image pipeline of diffusers, by its name on the Hub (with a revision) or a folder.

The pipeline's own loop and scheduler run: the recipe's sampler is method "native" with steps and
guidance. Each image has its own random generator on the CPU, so it does not depend on its
neighbours. Safety checkers are left out; what a licence asks of them is for the recipe to say. A
model that brings its own code is refused.
"""

import hashlib
from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing, multiple_of
from generation.pretrained.diffusers_folder import (
    INDEX,
    file_sha256,
    index_components,
    latent_step,
    locate_model,
    model_sha256,
)


def locate(checkpoint: str) -> Path:
    """The model's folder: a local one, else the Hub's cache, else fetched from the Hub."""
    return locate_model(checkpoint, None)


def sha256(folder: Path) -> str:
    """One hash over the pipeline's index and every component it loads."""
    parts = file_sha256(folder / INDEX) + model_sha256(folder, index_components(folder))
    return hashlib.sha256(parts.encode()).hexdigest()


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps it from being a first stage of `resolution` px."""
    if folder is None:
        return from_nothing(parent)
    return from_nothing(parent) or multiple_of(latent_step(folder), resolution)


def load(folder: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU; networks load when used."""
    from generation.families.diffusers.pipeline import PipelineGenerator
    from generation.networks.placement import best_placement

    return PipelineGenerator(folder, best_placement(compiled))


def work(checkpoint: str, resolution: int) -> Work | None:
    """What an image of a published model takes."""
    from generation.families.diffusers.work import pipeline_work

    return pipeline_work(checkpoint, resolution)
