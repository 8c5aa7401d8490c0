"""JiT on ImageNet (Li & He 2025): one file in its authors' layout, which makes pixels.

To import it is to import no torch.
"""

from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.source_files import SingleFile

SOURCE = "the folder that the README of github.com/LTH14/JiT links (checkpoint-last.pth)"


def _load(file: Path, compiled: bool) -> Generator:
    """On the GPU if there is one, in bfloat16 there; else float32 on the CPU."""
    from generation.families.jit.sampling import jit
    from generation.networks.placement import best_placement

    return jit(file, best_placement(compiled))


def _counted(checkpoint: str, resolution: int) -> Work | None:
    from generation.families.jit.work import published_work

    return published_work(checkpoint, resolution)


GENERATOR = SingleFile(SOURCE, lambda _, parent: from_nothing(parent), _load, _counted)
