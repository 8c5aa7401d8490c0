"""LDM-4 on ImageNet (Rombach et al. 2022), class-conditional: one file in the authors' layout."""

from pathlib import Path

from generation.families import Generator
from generation.families.image_sizes import from_nothing
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file

SOURCE = "the notebook latent_imagenet_diffusion of CompVis/latent-diffusion (cin256-v2/model.ckpt)"


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
    """bfloat16 on the GPU if there is one, else float32 on the CPU; decoded in float32."""
    from generation.families.latent_diffusion.sampling import LatentDiffusion
    from generation.networks.placement import best_placement

    return LatentDiffusion(file, best_placement(compiled))
