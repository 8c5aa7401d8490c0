"""DiT's and SiT's checkpoints as generators: the interface of generation/generator.py.

What finetune-generator wrote, or a file in the authors' layout. Of DiT also diffusers' folder,
which generation/families/dit/ reads. To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from generation.denoisers.checkpoint_files import CONFIG_FILE, is_of
from generation.denoisers.latents import LatentSource
from generation.diffusion.schedule import ScheduleConfig
from generation.families.diffusion_transformer.files import TransformerFiles, is_file
from generation.families.diffusion_transformer.recipe import LINEAR
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing
from generation.pretrained.diffusers_folder import HUB_NAME, schedule_at_hand


@dataclass
class TransformerSource(LatentSource):
    """files: the authors' own. folders: the generator of other folders, where there is one."""

    files: TransformerFiles
    folders: ModuleType | None = None

    def locate(self, checkpoint: str) -> Path:
        """The file, or the folder; UserError also for an autoencoder that is out of reach."""
        folder = Path(checkpoint)
        if is_file(checkpoint):
            return self.files.locate(checkpoint)
        named = folder.is_dir() or HUB_NAME.fullmatch(checkpoint)
        if named and self._is_other(folder):
            return self._other.locate(checkpoint)  # type: ignore[no-any-return]
        return super().locate(checkpoint)

    def sha256(self, folder: Path) -> str:
        """Of all that decides the pixels; of a file also its autoencoder."""
        if folder.is_file():
            return self.files.sha256(folder)
        if self._is_other(folder):
            return self._other.sha256(folder)  # type: ignore[no-any-return]
        return super().sha256(folder)

    def unconditional(self, folder: Path) -> bool:
        """Whether the network knows of no classes."""
        return not folder.is_file() and not self._is_other(folder) and super().unconditional(folder)

    def known_prompts(self, folder: Path) -> tuple[str, ...] | None:
        """Those of the classes that the network learned; None of one that is told labels."""
        return None if folder.is_file() or self._is_other(folder) else super().known_prompts(folder)

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return self.files.methods()

    def trained_resolution(self, folder: Path) -> int | None:
        """The stage's side in px; None for a folder that holds no checkpoint of this family."""
        return super().trained_resolution(folder) if is_of(self.family, folder) else None

    def size_problem(self, folder: Path | None, resolution: int, parent: int | None) -> str | None:
        """What keeps it from making images of `resolution` px; of a file its first batch tells."""
        if folder is None or folder.is_file():
            return from_nothing(parent)
        if self._is_other(folder):
            problem: str | None = self._other.size_problem(folder, resolution, parent)
            return problem
        return super().size_problem(folder, resolution, parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of the published networks by their names, of others by their configs."""
        from generation.families.diffusion_transformer.work import own_work

        known = self.files.work(checkpoint, resolution)
        return known if known is not None else own_work(self.family, checkpoint, resolution)

    def schedule(self, checkpoint: str) -> ScheduleConfig | None:
        """Of DiT's published networks, and of a training's; None of a flow."""
        if self.files.layout.flow:
            return None
        if is_file(checkpoint):
            return LINEAR
        return super().schedule(checkpoint) or schedule_at_hand(checkpoint)

    def guide_problem(self, folder: Path, guide: Path) -> str | None:
        """Why `guide` cannot guide the network in `folder`: both are files, or both our folders."""
        both = (folder, guide)
        if all(one.is_file() for one in both):
            return self.files.guide_problem(folder, guide)
        if any(one.is_file() or self._is_other(one) for one in both):
            return (
                "cannot guide it: both must be the authors' files, or folders that "
                "finetune-generator wrote"
            )
        return super().guide_problem(folder, guide)

    def load_guided(self, folder: Path, guide: Path, compiled: bool) -> Generator:
        """The same, guided by the network in `guide`."""
        if folder.is_file():
            return self.files.load_guided(folder, guide, compiled)
        return super().load_guided(folder, guide, compiled)

    def load(self, folder: Path, compiled: bool) -> Generator:
        """On the GPU if there is one, a file in bfloat16 there; else float32 on the CPU."""
        if folder.is_file():
            return self.files.load(folder, compiled)
        if self._is_other(folder):
            generator: Generator = self._other.load(folder, compiled)
            return generator
        return super().load(folder, compiled)

    def _is_other(self, folder: Path) -> bool:
        return self.folders is not None and not (folder / CONFIG_FILE).is_file()

    @property
    def _other(self) -> ModuleType:
        assert self.folders is not None
        return self.folders
