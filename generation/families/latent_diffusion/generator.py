"""LDM-4 on ImageNet (Rombach et al. 2022), class-conditional: one file in the authors' layout."""

from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.source_files import SingleFile

SOURCE = "the notebook latent_imagenet_diffusion of CompVis/latent-diffusion (cin256-v2/model.ckpt)"
SIDE = 256  # px, of the published model's images


def _load(file: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU; decoded in float32."""
    from generation.families.latent_diffusion.sampling import LatentDiffusion
    from generation.networks.placement import best_placement

    return LatentDiffusion(file, best_placement(compiled))


def _work(_checkpoint: str, resolution: int) -> Work | None:
    from generation.families.latent_diffusion.work import published_work

    return published_work() if resolution == SIDE else None


LDM_4 = SingleFile(SOURCE, lambda _resolution, parent: from_nothing(parent), _load, _work)
