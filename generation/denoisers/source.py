"""Sampling of a family's checkpoints: the interface of generation/generator.py.

To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from generation.denoisers.checkpoint_files import (
    checkpoint_sha256,
    is_of,
    planned_config,
    read_config,
    resolve,
)
from generation.denoisers.family import Family
from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler_config import PIXEL_METHODS, SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.generator import Generator, ImageBatch, Screened
from generation.networks.flops import Work
from generation.networks.guide_fit import guide_difference
from generation.networks.image_sizes import from_nothing, from_side, one_size
from generation.networks.pixels import parents_of, start_of, to_rgb
from release.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from generation.denoisers.network import Denoiser
    from generation.diffusion.sampler import Guide


@dataclass
class DenoiserSource:
    """A family's generator, as a stage of a recipe names it."""

    family: Family

    def locate(self, checkpoint: str) -> Path:
        """The checkpoint's folder."""
        return resolve(self.family, checkpoint)

    def sha256(self, folder: Path) -> str:
        """One hash over the files that decide the pixels."""
        return checkpoint_sha256(folder)

    def unconditional(self, folder: Path) -> bool:
        """Whether the network knows of no classes, so that a label says nothing of its image."""
        return read_config(self.family, folder).stage.conditioning == "none"

    def known_prompts(self, folder: Path) -> tuple[str, ...] | None:
        """Those of the classes that the network learned; None if it asks for none."""
        if self.unconditional(folder):
            return None
        return read_config(self.family, folder).classes[:-1]

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return PIXEL_METHODS

    def trained_resolution(self, folder: Path) -> int | None:
        """The stage's side in px; None for a folder that holds no checkpoint of this family."""
        if not is_of(self.family, folder):
            return None
        return read_config(self.family, self.locate(str(folder))).stage.resolution

    def size_problem(self, folder: Path | None, resolution: int, parent: int | None) -> str | None:
        """What keeps the stage from making `resolution` px images from `parent` px ones."""
        if folder is None:
            return None if self.family.enlarges else from_nothing(parent)
        stage = read_config(self.family, folder).stage
        low = stage.low_resolution
        follows = from_nothing(parent) if low is None else from_side(low, parent)
        return one_size(stage.resolution, resolution) or follows

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of a checkpoint that is here, or that a training recipe of ours is to make."""
        from generation.denoisers.work import evaluation_flops

        config = planned_config(self.family, checkpoint)
        if config is None or config.stage.resolution != resolution:
            return None
        return Work(evaluation_flops(self.family, config), precision="single")

    def schedule(self, checkpoint: str) -> ScheduleConfig | None:
        """Of a checkpoint that is here, or that a training recipe of ours is to make."""
        config = planned_config(self.family, checkpoint)
        return None if config is None else config.stage.schedule

    def guide_problem(self, folder: Path, guide: Path) -> str | None:
        """Why the network in `guide` cannot guide the one in `folder`."""
        config, weaker = (read_config(self.family, one) for one in (folder, guide))
        task, found = (one.stage.model_dump(mode="json") for one in (config, weaker))
        return guide_difference(task, found, config.classes, weaker.classes)

    def load(self, folder: Path, compiled: bool) -> Generator:
        """The stage's network on the GPU if there is one, else on the CPU; float32 on both."""
        return self.family.sampler(self.network(folder, compiled))

    def load_guided(self, folder: Path, guide: Path, compiled: bool) -> Generator:
        """The same, guided by the network in `guide`."""
        return self.family.sampler(*(self.network(one, compiled) for one in (folder, guide)))

    def network(self, folder: Path, compiled: bool) -> "Denoiser":
        """A checkpoint's network, where it is to run."""
        import torch

        from generation.denoisers.checkpoint import load_checkpoint
        from generation.networks.placement import best_placement

        network = load_checkpoint(self.family, folder)
        return best_placement(compiled).place(network, torch.float32)


@dataclass
class PixelSource(DenoiserSource):
    """Of a family whose networks see pixels: its sampling may begin from images."""

    def exemplar_channels(self, folder: Path) -> int:
        """Of the stage's images."""
        return read_config(self.family, folder).channels


class DenoiserGenerator:
    """Samples one stage. guide: what guidance leads away from; by default the network, told no
    class."""

    takes_noisy_parents = False
    guided_by_classifier = False

    def __init__(self, network: "Denoiser", guide: "Denoiser | None" = None) -> None:
        self._network, self._guide = network, guide

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3], or Screened if any is not finite; UserError as `sampled`."""
        return to_rgb(self.sampled(batch, settings).float().cpu().numpy())

    def sampled(self, batch: ImageBatch, settings: SamplerConfig) -> "Tensor":
        """float[N,C,H,W], as the network makes it: of images about in [-1, 1].

        Raises UserError if the batch has no parents and the stage needs them, or none in colour.
        """
        import torch

        from generation.denoisers.sampling import bound_denoiser
        from generation.diffusion.sampler import sample

        network, config = self._network, self._network.config
        stage, device = config.stage, next(network.parameters()).device
        self.require_effect(settings)
        schedule = NoiseSchedule(stage.schedule)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, network.seen)) as noise:
            parent = self.parents(batch, settings, device)
            return sample(
                bound_denoiser(network, self._guide, list(batch.prompts), settings, parent),
                schedule,
                stage.prediction,
                settings,
                lambda: torch.from_numpy(noise()).to(device),
                guide=self.guide(batch, schedule, settings),
                start=start_of(batch, config.channels, device),
            )

    def parents(
        self,
        batch: ImageBatch,
        settings: SamplerConfig,  # noqa: ARG002 - of families that change parents
        device: "torch.device",
    ) -> "Tensor | None":
        """float32[N,C,h,w], as the network is told of them; None for a base stage."""
        config = self._network.config
        return parents_of(batch, config.stage.low_resolution, config.channels, device)

    def guide(
        self,
        batch: ImageBatch,  # noqa: ARG002 - of families that are guided
        schedule: NoiseSchedule,  # noqa: ARG002
        settings: SamplerConfig,  # noqa: ARG002
    ) -> "Guide | None":
        """What a classifier adds; None without one."""
        return None

    def require_effect(self, settings: SamplerConfig) -> None:
        """UserError for a setting that this network would not heed."""
        unconditional = self._network.config.stage.conditioning == "none"
        if unconditional and self._guide is None and settings.guidance != 1:
            raise UserError("an unconditional checkpoint has nothing to guide by: leave guidance 1")
        if settings.classifier is not None and not self.guided_by_classifier:
            raise UserError("no classifier guides this checkpoint: leave classifier out")
        if settings.noise_augmentation != 0 and not self.takes_noisy_parents:
            raise UserError("the checkpoint knows no noise in parents: leave noise_augmentation 0")
