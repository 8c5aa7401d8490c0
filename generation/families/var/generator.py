"""VAR on ImageNet: its authors' two files, the autoencoder's beside the transformer's.

To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from generation.diffusion.sampler_config import NEXT_SCALE
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file
from release.errors import UserError
from release.files.commit import sha256_text

SOURCE = "the Hub, FoundationVision/var"
AUTOENCODER = "vae_ch160v4096z32"
SUFFIXES = (".pth", ".safetensors")


@dataclass
class VARSource:
    """The interface of generation/generator.py."""

    SHAPES_VARY = True  # each scale has its own

    def locate(self, checkpoint: str) -> Path:
        """The file; UserError also for an autoencoder that is not beside it."""
        file = locate_file(checkpoint, f"{SOURCE} ({Path(checkpoint).name})")
        autoencoder_beside(file)
        return file

    def sha256(self, file: Path) -> str:
        """Of all that decides the pixels: both files."""
        return sha256_text(f"{file_sha256(file)} {file_sha256(autoencoder_beside(file))}")

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return (NEXT_SCALE,)

    def size_problem(self, _file: Path | None, _resolution: int, parent: int | None) -> str | None:
        """Its first batch tells which size its images have."""
        return from_nothing(parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of a published network, by its file's name."""
        from generation.families.var.work import published_work

        return published_work(checkpoint, resolution)

    def load(self, file: Path, compiled: bool) -> Generator:
        """float16 on the GPU if there is one, as its authors sample it; else float32 on the CPU.
        The decoder runs in float32 on both."""
        from generation.families.var.sampling import VARGenerator
        from generation.networks.placement import best_placement

        placement = best_placement(compiled).on_gpu("float16")
        return VARGenerator(file, autoencoder_beside(file), placement)


def autoencoder_beside(file: Path) -> Path:
    """UserError if it is not there."""
    for suffix in SUFFIXES:
        beside = file.parent / f"{AUTOENCODER}{suffix}"
        if beside.is_file():
            return beside
    raise UserError(
        f"{file} has no autoencoder beside it: put {AUTOENCODER}.pth of {SOURCE} into {file.parent}"
    )


GENERATOR = VARSource()
