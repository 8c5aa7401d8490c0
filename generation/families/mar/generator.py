"""MAR on ImageNet (Li et al. 2024): one file in its authors' layout, and its autoencoder.

To import it is to import no torch.
"""

from pathlib import Path

from generation.diffusion.sampler_config import MASKED
from generation.families.mar.autoencoder import kl_16_of
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.source_files import SingleFile

SOURCE = (
    "where the README of github.com/LTH14/mar says (each is called checkpoint-last.pth there: give "
    "it the name mar_base.pth, mar_large.pth or mar_huge.pth)"
)


def _load(file: Path, compiled: bool) -> Generator:
    """float16 on the GPU if there is one, as its authors sample it; else float32 on the CPU."""
    from generation.families.mar.sampling import MARGenerator
    from generation.networks.placement import best_placement

    return MARGenerator(file, kl_16_of(file), best_placement(compiled).on_gpu("float16"))


def _counted(checkpoint: str, resolution: int) -> Work | None:
    from generation.families.mar.work import published_work

    return published_work(checkpoint, resolution)


GENERATOR = SingleFile(
    *(SOURCE, lambda _, parent: from_nothing(parent), _load, _counted),
    beside=kl_16_of,
    sampled_by=(MASKED,),
)
