"""Improved MeanFlow on ImageNet (Geng et al. 2025): one file in its authors' layout.

Its latents are those of Stable Diffusion's ft-MSE autoencoder: its folder sd-vae-ft-mse beside the
file, else the Hub's. To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from generation.diffusion.sampler_config import MEAN_FLOW
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.autoencoder_files import AutoencoderFiles, autoencoder_beside
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file
from release.files.commit import sha256_text

SOURCE = "the Hub, Lyy0725/iMF (iMF-XL-2.pth)"
AUTOENCODER = "stabilityai/sd-vae-ft-mse"


@dataclass
class MeanFlowSource:
    """The interface of generation/generator.py."""

    def locate(self, checkpoint: str) -> Path:
        """The file; UserError also for an autoencoder that is out of reach."""
        file = locate_file(checkpoint, SOURCE)
        _autoencoder_of(file)
        return file

    def sha256(self, file: Path) -> str:
        """Of all that decides the pixels: the file and its autoencoder."""
        return sha256_text(f"{file_sha256(file)} {_autoencoder_of(file).sha256}")

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return (MEAN_FLOW,)

    def size_problem(self, _file: Path | None, _resolution: int, parent: int | None) -> str | None:
        """Its first batch tells which size its images have."""
        return from_nothing(parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of a published network, by its file's name."""
        from generation.families.mean_flow.work import published_work

        return published_work(checkpoint, resolution)

    def load(self, file: Path, compiled: bool) -> Generator:
        """On the GPU if there is one, else on the CPU; float32 on both."""
        from generation.families.mean_flow.sampling import MeanFlow
        from generation.networks.placement import best_placement

        return MeanFlow(file, _autoencoder_of(file), best_placement(compiled))


def _autoencoder_of(file: Path) -> AutoencoderFiles:
    return autoencoder_beside(file, AUTOENCODER)


GENERATOR = MeanFlowSource()
