"""LDM-4 (Rombach et al. 2022) as generators name it: generation/generator.py.

What finetune-generator wrote, or one file in the authors' layout, trained on ImageNet. To import it
is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from generation.denoisers.checkpoint_files import is_of
from generation.denoisers.latents import LatentSource
from generation.diffusion.schedule import ScheduleConfig
from generation.families.latent_diffusion.recipe import SCHEDULE
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.guide_fit import OWN_ALONE
from generation.networks.image_sizes import from_nothing
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file

PUBLISHED = (
    "the notebook latent_imagenet_diffusion of CompVis/latent-diffusion (cin256-v2/model.ckpt)"
)
SIDE = 256  # px, of the published model's images


@dataclass
class LatentDiffusionSource(LatentSource):
    """A checkpoint that is no folder is the authors' file."""

    def locate(self, checkpoint: str) -> Path:
        """The folder, or the file named, or the one of that name in the model cache."""
        if Path(checkpoint).is_dir() or not Path(checkpoint).suffix:
            return super().locate(checkpoint)
        return locate_file(checkpoint, PUBLISHED)

    def sha256(self, folder: Path) -> str:
        """Of all that decides the pixels."""
        return file_sha256(folder) if folder.is_file() else super().sha256(folder)

    def unconditional(self, folder: Path) -> bool:
        """Whether the network knows of no classes."""
        return not folder.is_file() and super().unconditional(folder)

    def known_prompts(self, folder: Path) -> tuple[str, ...] | None:
        """Those of the classes that the network learned; None of one that is told labels."""
        return None if folder.is_file() else super().known_prompts(folder)

    def trained_resolution(self, folder: Path) -> int | None:
        """The stage's side in px; None for a folder that holds no checkpoint of this family."""
        return super().trained_resolution(folder) if is_of(self.family, folder) else None

    def size_problem(self, folder: Path | None, resolution: int, parent: int | None) -> str | None:
        """What keeps it from making images of `resolution` px; of a file its first batch tells."""
        if folder is None or folder.is_file():
            return from_nothing(parent)
        return super().size_problem(folder, resolution, parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of the authors' file by its size, of other checkpoints by their configs."""
        from generation.families.latent_diffusion.work import own_work, published_work

        if not Path(checkpoint).suffix:
            return own_work(self.family, checkpoint, resolution)
        return published_work() if resolution == SIDE else None

    def schedule(self, checkpoint: str) -> ScheduleConfig | None:
        """Of the authors' file theirs, of other checkpoints their own."""
        return SCHEDULE if Path(checkpoint).suffix else super().schedule(checkpoint)

    def guide_problem(self, folder: Path, guide: Path) -> str | None:
        """Why `guide` cannot guide the network in `folder`; the authors' file guides none."""
        if folder.is_file() or guide.is_file():
            return OWN_ALONE
        return super().guide_problem(folder, guide)

    def load(self, folder: Path, compiled: bool) -> Generator:
        """A file in bfloat16 on the GPU if there is one; else in float32, decoded in float32."""
        if folder.is_dir():
            return super().load(folder, compiled)
        from generation.families.latent_diffusion.sampling import LatentDiffusion
        from generation.networks.placement import best_placement

        return LatentDiffusion(folder, best_placement(compiled))
