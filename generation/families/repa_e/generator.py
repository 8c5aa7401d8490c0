"""REPA-E on ImageNet (Leng et al. 2025): SiT in its authors' layout, and its autoencoder.

GENERATOR is of networks that learned from a frozen autoencoder, diffusers' AutoencoderKL: its
folder e2e-vavae-hf beside the file, else the Hub's. END_TO_END is of networks that learned together
with theirs, which the same file holds. To import it is to import no torch.
"""

from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.autoencoder_files import AutoencoderFiles, autoencoder_beside
from generation.pretrained.source_files import SingleFile

SOURCE = "the Hub, REPA-E/sit-ldm-e2e-vavae (checkpoints/4000000.pt)"
TOGETHER = "the Hub, REPA-E/sit-repae-invae, -vavae or -sdvae (checkpoints/0400000.pt)"
AUTOENCODER = "REPA-E/e2e-vavae-hf"


def autoencoder_of(file: Path) -> AutoencoderFiles:
    """That of a checkpoint; UserError if it is out of reach."""
    return autoencoder_beside(file, AUTOENCODER)


def _load(file: Path, compiled: bool) -> Generator:
    """On the GPU if there is one, in bfloat16 there; else float32 on the CPU."""
    from generation.families.repa_e.sampling import repa_e
    from generation.networks.placement import best_placement

    return repa_e(file, autoencoder_of(file), best_placement(compiled))


def _load_together(file: Path, compiled: bool) -> Generator:
    """As `_load`, its autoencoder from the same file."""
    from generation.families.repa_e.sampling import repa_e_end_to_end
    from generation.networks.placement import best_placement

    return repa_e_end_to_end(file, best_placement(compiled))


def _counted(checkpoint: str, resolution: int) -> Work | None:
    from generation.families.repa_e.work import published_work

    return published_work(checkpoint, resolution)


GENERATOR = SingleFile(
    SOURCE, lambda _, parent: from_nothing(parent), _load, _counted, beside=autoencoder_of
)
END_TO_END = SingleFile(TOGETHER, lambda _, parent: from_nothing(parent), _load_together, _counted)
