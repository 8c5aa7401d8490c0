"""DiT^DH on ImageNet (Zheng et al. 2025): one file in its authors' layout, and its autoencoder.

The autoencoder is diffusers' AutoencoderRAE: its folder beside the file, else the Hub's. To import
it is to import no torch.
"""

from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.autoencoder_files import (
    REPRESENTATION,
    AutoencoderFiles,
    autoencoder_beside,
)
from generation.pretrained.source_files import SingleFile

SOURCE = (
    "the Hub, nyu-visionx/RAE-collections "
    "(DiTs/Dinov2/wReg_base/ImageNet256/DiTDH-XL/stage2_model.pt)"
)
AUTOENCODER = "nyu-visionx/RAE-dinov2-wReg-base-ViTXL-n08"


def autoencoder_of(file: Path) -> AutoencoderFiles:
    """That of a checkpoint; UserError if it is out of reach."""
    return autoencoder_beside(file, AUTOENCODER, REPRESENTATION)


def _load(file: Path, compiled: bool, guide: Path | None = None) -> Generator:
    """On the GPU if there is one, else on the CPU; float32 on both, as its authors advise."""
    from generation.families.rae.sampling import rae
    from generation.networks.placement import best_placement

    return rae(file, autoencoder_of(file), best_placement(compiled).on_gpu("float32"), guide)


def _counted(checkpoint: str, resolution: int) -> Work | None:
    from generation.families.rae.work import published_work

    return published_work(checkpoint, resolution)


class GuidedFile(SingleFile):
    """Its networks may be guided by a weaker one, a file in the same layout."""

    def guide_problem(self, _file: Path, _guide: Path) -> str | None:
        """None: what it is, its weights tell."""
        return None

    def load_guided(self, file: Path, guide: Path, compiled: bool) -> Generator:
        """Guided by the network in `guide`; UserError for one of other latents or classes."""
        return _load(file, compiled, guide)


GENERATOR = GuidedFile(
    SOURCE, lambda _, parent: from_nothing(parent), _load, _counted, beside=autoencoder_of
)
