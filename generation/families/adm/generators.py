"""OpenAI's class-conditional U-Nets on ImageNet: one file each, as their authors published it.

A stage that `finetune-generator` trained is a checkpoint, too: a folder with such a file, whose
`finetuned.json` says which of these networks it is.
"""

from dataclasses import dataclass
from pathlib import Path

from generation.diffusion.sampler_config import PIXEL_METHODS
from generation.diffusion.schedule import ScheduleConfig
from generation.families.adm.networks import NETWORKS
from generation.families.adm.recipe import UPSCALING
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing, from_parents
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.finetuned import fine_tuned
from generation.pretrained.source_files import locate_file
from release.errors import UserError

GUIDED_DIFFUSION = "the model table in the README of openai/guided-diffusion"
IMPROVED_DIFFUSION = "the model list in the README of openai/improved-diffusion"
WEIGHTS = "model.safetensors"  # of a stage trained here, by OpenAI's keys


@dataclass
class OpenAISource:
    """A generator source (generation/generator.py). source: where its authors offer the file."""

    name: str
    source: str

    def locate(self, checkpoint: str) -> Path:
        """The file named, in the model cache or in the folder of a training.

        UserError for a folder that holds another of these networks: the tensors would fit it.
        """
        folder = Path(checkpoint)
        told = fine_tuned(folder)
        if told is None:
            return locate_file(checkpoint, self.source)
        if told.generator != self.name:
            raise UserError(f"{checkpoint} is a checkpoint of {told.generator}, not of {self.name}")
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{checkpoint} is not a whole checkpoint: no {WEIGHTS} there")
        return folder / WEIGHTS

    def sha256(self, file: Path) -> str:
        """The hash of the checkpoint file, as downloaded."""
        return file_sha256(file)

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return PIXEL_METHODS

    def trained_resolution(self, folder: Path) -> int | None:
        """The stage's side in px; None for a folder that holds no such network trained here."""
        told = fine_tuned(folder)
        return told.resolution if told is not None and told.generator == self.name else None

    def size_problem(self, _file: Path | None, resolution: int, parent: int | None) -> str | None:
        """Why it makes no image of `resolution` px from one of `parent` px; None if it does."""
        if NETWORKS[self.name].enlarges:
            return from_parents(UPSCALING, resolution, parent)
        return from_nothing(parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of the published network of that name; a training keeps its shape."""
        from generation.families.adm.work import unet_work

        return unet_work(NETWORKS[self.name], checkpoint, resolution)

    def schedule(self, _checkpoint: str) -> ScheduleConfig:
        """Of the published network of that name; a training keeps it."""
        return NETWORKS[self.name].schedule

    def guide_problem(self, _file: Path, _guide: Path) -> str | None:
        """One generator's networks have one task; sides and classes are told by their tensors."""
        return None

    def load(self, file: Path, compiled: bool) -> Generator:
        """On the GPU if there is one, in bfloat16 or the precision of a training; else on the CPU
        in float32."""
        return self._loaded(file, None, compiled)

    def load_guided(self, file: Path, guide: Path, compiled: bool) -> Generator:
        """The same, guided by the network in `guide`, in the precision of what it guides."""
        return self._loaded(file, guide, compiled)

    def _loaded(self, file: Path, guide: Path | None, compiled: bool) -> Generator:
        from generation.families.adm.sampling import GuidedDiffusion
        from generation.networks.placement import best_placement

        told = fine_tuned(file.parent) if file.name == WEIGHTS else None
        placement = best_placement(compiled)
        if told is not None:
            placement = placement.on_gpu(told.precision)
        return GuidedDiffusion(file, NETWORKS[self.name], placement, guide)


@dataclass
class BaseSource(OpenAISource):
    """Of a network that makes images from noise: its sampling may begin from images."""

    def exemplar_channels(self, _file: Path) -> int:
        """All of them see colour."""
        return 3


ADM_64 = BaseSource("adm-64", GUIDED_DIFFUSION)
ADM_256 = BaseSource("adm-256", GUIDED_DIFFUSION)
ADM_UPSAMPLER = OpenAISource("adm-upsampler", GUIDED_DIFFUSION)
IDDPM = BaseSource("iddpm", IMPROVED_DIFFUSION)
