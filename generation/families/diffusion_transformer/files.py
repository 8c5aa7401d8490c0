"""A file in its authors' layout as a generator: the interface of generation/generator.py.

Its latents are those of Stable Diffusion's autoencoder: its folder sd-vae-ft-ema beside the file,
else the Hub's. To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from generation.diffusion.sampler_config import FLOW_METHODS, PIXEL_METHODS
from generation.families.diffusion_transformer.layout import Layout
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.autoencoder_files import AutoencoderFiles, autoencoder_beside
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file
from release.errors import UserError
from release.files.commit import sha256_text

AUTOENCODER = "stabilityai/sd-vae-ft-ema"
SUFFIXES = (".pt", ".safetensors")


@dataclass
class TransformerFiles:
    """published: where the authors offer their files, in words."""

    published: str
    layout: Layout

    def locate(self, checkpoint: str) -> Path:
        """The file; UserError also for an autoencoder that is out of reach."""
        if not is_file(checkpoint):
            raise UserError(
                f"checkpoint {checkpoint} is no file in its authors' layout, "
                f"{' or '.join(SUFFIXES)}: they offer it at {self.published}"
            )
        file = locate_file(checkpoint, self.published)
        autoencoder_of(file)
        return file

    def sha256(self, file: Path) -> str:
        """Of all that decides the pixels: the file and its autoencoder."""
        return sha256_text(f"{file_sha256(file)} {autoencoder_of(file).sha256}")

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return FLOW_METHODS if self.layout.flow else PIXEL_METHODS

    def size_problem(self, _file: Path | None, _resolution: int, parent: int | None) -> str | None:
        """Its first batch tells which size its images have."""
        return from_nothing(parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of a published network, by its name."""
        from generation.families.diffusion_transformer.work import published_work

        return published_work(checkpoint, resolution)

    def guide_problem(self, file: Path, guide: Path) -> str | None:
        """Whether both know the same latents; of classes and sides their tensors tell."""
        if autoencoder_of(file).sha256 != autoencoder_of(guide).sha256:
            return "has another autoencoder than the network it is to guide"
        return None

    def load(self, file: Path, compiled: bool) -> Generator:
        """On the GPU if there is one, in bfloat16 there; else float32 on the CPU."""
        return self._loaded(file, None, compiled)

    def load_guided(self, file: Path, guide: Path, compiled: bool) -> Generator:
        """The same, guided by the network in `guide`."""
        return self._loaded(file, guide, compiled)

    def _loaded(self, file: Path, guide: Path | None, compiled: bool) -> Generator:
        from generation.families.diffusion_transformer.sampling import PublishedTransformer
        from generation.networks.placement import best_placement

        placement = best_placement(compiled)
        return PublishedTransformer(file, autoencoder_of(file), placement, self.layout, guide)


def is_file(checkpoint: str) -> bool:
    """Whether that names a file in the authors' layout."""
    return checkpoint.endswith(SUFFIXES)


def autoencoder_of(file: Path) -> AutoencoderFiles:
    """That of a checkpoint in its authors' layout."""
    return autoencoder_beside(file, AUTOENCODER)
