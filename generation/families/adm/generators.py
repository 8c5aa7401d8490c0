"""OpenAI's class-conditional U-Nets on ImageNet: one file each, as their authors published it."""

from functools import partial
from pathlib import Path

from generation.generator import Generator
from generation.networks.image_sizes import from_nothing, from_parents
from generation.pretrained.source_files import SingleFile

GUIDED_DIFFUSION = "the model table in the README of openai/guided-diffusion"
IMPROVED_DIFFUSION = "the model list in the README of openai/improved-diffusion"
UPSCALING = 4  # of the upsampler


def _load(network: str, file: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU."""
    from generation.families.adm import sampling
    from generation.networks.placement import best_placement

    return sampling.GuidedDiffusion(file, sampling.NETWORKS[network], best_placement(compiled))


def _first_stage(_resolution: int, parent: int | None) -> str | None:
    return from_nothing(parent)


def _enlarging(resolution: int, parent: int | None) -> str | None:
    return from_parents(UPSCALING, resolution, parent)


ADM_64 = SingleFile(GUIDED_DIFFUSION, _first_stage, partial(_load, "adm-64"))
ADM_256 = SingleFile(GUIDED_DIFFUSION, _first_stage, partial(_load, "adm-256"))
ADM_UPSAMPLER = SingleFile(GUIDED_DIFFUSION, _enlarging, partial(_load, "adm-upsampler"))
IDDPM = SingleFile(IMPROVED_DIFFUSION, _first_stage, partial(_load, "iddpm"))
