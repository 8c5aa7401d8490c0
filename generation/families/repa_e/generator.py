"""REPA-E on ImageNet (Leng et al. 2025): SiT in its authors' layout, and its autoencoder.

The autoencoder is diffusers' AutoencoderKL: its folder e2e-vavae-hf beside the file, else the
Hub's. To import it is to import no torch.
"""

from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.autoencoder_files import AutoencoderFiles, autoencoder_beside
from generation.pretrained.source_files import SingleFile

SOURCE = "the Hub, REPA-E/sit-ldm-e2e-vavae (checkpoints/4000000.pt)"
AUTOENCODER = "REPA-E/e2e-vavae-hf"


def autoencoder_of(file: Path) -> AutoencoderFiles:
    """That of a checkpoint; UserError if it is out of reach."""
    return autoencoder_beside(file, AUTOENCODER)


def _load(file: Path, compiled: bool) -> Generator:
    """On the GPU if there is one, in bfloat16 there; else float32 on the CPU."""
    from generation.families.repa_e.sampling import repa_e
    from generation.networks.placement import best_placement

    return repa_e(file, autoencoder_of(file), best_placement(compiled))


def _counted(checkpoint: str, resolution: int) -> Work | None:
    from generation.families.repa_e.work import published_work

    return published_work(checkpoint, resolution)


GENERATOR = SingleFile(
    SOURCE, lambda _, parent: from_nothing(parent), _load, _counted, beside=autoencoder_of
)
