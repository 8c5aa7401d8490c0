"""LightningDiT on ImageNet (Yao et al. 2025): one file in its authors' layout, and its VA-VAE.

To import it is to import no torch.
"""

from pathlib import Path

from generation.families.lightning_dit.autoencoder import va_vae_of
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.source_files import SingleFile

SOURCE = "the Hub, hustvl/lightningdit-xl-imagenet256-800ep"


def _load(file: Path, compiled: bool) -> Generator:
    """On the GPU if there is one, in bfloat16 there; else float32 on the CPU."""
    from generation.families.lightning_dit.sampling import lightning_dit
    from generation.networks.placement import best_placement

    return lightning_dit(file, va_vae_of(file), best_placement(compiled))


def _counted(checkpoint: str, resolution: int) -> Work | None:
    from generation.families.lightning_dit.work import published_work

    return published_work(checkpoint, resolution)


GENERATOR = SingleFile(
    SOURCE, lambda _, parent: from_nothing(parent), _load, _counted, beside=va_vae_of
)
