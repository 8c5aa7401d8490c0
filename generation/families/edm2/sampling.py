"""Sampling EDM2: Heun's steps over EDM's noise levels, guided by a second network if one is given.

As its authors' code: without churn, the network in float16 on a GPU, all else in float32. Latents
have a deviation of 0.5; the autoencoder's images count from 0 to 1.
"""

from pathlib import Path

import torch
from torch import Tensor

from generation.diffusion.edm import edm_sample, require_edm
from generation.diffusion.edm_levels import flow_time
from generation.diffusion.flow_times import acts_at
from generation.diffusion.guidance import Bound, autoguided
from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.edm2.converter import convert
from generation.families.edm2.network import EDM2, SIGMA_DATA
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import Autoencoder
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.components import require_first_stage, require_labels
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

# of each channel of the autoencoder's latents, as the authors' code has them
MEAN = (5.81, 3.25, 0.12, -2.15)
DEVIATION = (4.17, 4.62, 3.71, 3.28)


class EDM2Generator(DecodingGenerator):
    """Samples a checkpoint; a class is its label. autoencoder: None on pixels."""

    def __init__(
        self,
        file: Path,
        autoencoder: AutoencoderFiles | None,
        placement: Placement,
        guide: Path | None = None,
    ) -> None:
        self._file, self._device = file, placement.device
        self._network = _placed(file, placement)
        self._guide = None if guide is None else _placed(guide, placement)
        self._autoencoder = None if autoencoder is None else Autoencoder(autoencoder, self._device)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w], without an autoencoder of pixels; UserError for labels, parents or
        settings that do not fit."""
        plan = self._network.plan
        require_first_stage(batch, self._file)
        require_edm(settings, self._file)
        if plan.classes:
            require_labels(batch, plan.classes, self._file)
        shape = (plan.channels, plan.side, plan.side)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, shape)) as noise:
            start = torch.from_numpy(noise()).to(self._device)
            denoise = self._guided(batch, settings)
            return edm_sample(lambda x, sigma: denoise(x, sigma)[0], settings.steps, start)

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        if self._autoencoder is None:
            return latents
        mean, deviation = (
            torch.tensor(v, device=latents.device).view(-1, 1, 1) for v in (MEAN, DEVIATION)
        )
        scaled = latents / SIGMA_DATA * deviation + mean
        files = self._autoencoder.files
        decoded = self._autoencoder.decoded((scaled - files.shift_factor) * files.scaling_factor)
        return decoded * 2 - 1

    def _guided(self, batch: ImageBatch, settings: SamplerConfig) -> Bound:
        labels = torch.tensor(list(batch.labels), device=self._device)
        alone = bound(self._network, labels)
        if self._guide is not None:
            interval = settings.guidance_interval
            return autoguided(
                alone,
                bound(self._guide, labels),
                settings.guidance,
                lambda sigma: acts_at(interval, flow_time(sigma)),
            )
        if settings.guidance != 1:
            raise UserError(
                f"{self._file} has no null class: guidance must stay 1, or name a weaker network "
                "as the stage's guide"
            )
        return alone


def _placed(file: Path, placement: Placement) -> EDM2:
    return placement.place(convert(read_tensors(file), str(file)))


def bound(network: EDM2, labels: Tensor) -> Bound:
    """Told the classes of a batch; a network that knows none is told nothing."""
    told = labels if network.plan.classes else None

    def denoised(x: Tensor, t: float) -> tuple[Tensor, None]:
        """t: sigma."""
        return network(x, torch.full((len(x),), t, device=x.device), told), None

    return denoised
