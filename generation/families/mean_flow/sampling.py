"""Sampling improved MeanFlow: along its mean velocity, from noise to data.

    z_r = z_t - (t - r) u(z_t, t - r | class, w, interval),    t from 1, noise, to 0, data

in equal steps, mostly one or two. Guidance w and the interval in which it acted while the network
learned are told to it, so that a step is one call. Latents are those of Stable Diffusion's ft-MSE
autoencoder, less their mean and over their deviation. In float32, as its authors sample it.
"""

from pathlib import Path

import torch
from torch import Tensor

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler_config import MEAN_FLOW, SamplerConfig
from generation.families.mean_flow.converter import convert
from generation.families.mean_flow.network import MeanFlowNetwork
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import Autoencoder
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.components import require_first_stage, require_labels
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

SIDE = 32  # of the latents of all published networks, which no tensor tells
# of each channel, over ImageNet's latents, as the authors' code has them
MEAN = (0.86488, -0.27787343, 0.21616915, 0.3738409)
DEVIATION = (4.85503674, 5.31922414, 3.93725398, 3.9870003)
ALWAYS = (0.0, 1.0)


class MeanFlow(DecodingGenerator):
    """Samples a checkpoint in its authors' layout and decodes its latents; a class is its label."""

    def __init__(self, file: Path, autoencoder: AutoencoderFiles, placement: Placement) -> None:
        self._file, self._device = file, placement.device
        network: MeanFlowNetwork = convert(read_tensors(file), SIDE, str(file))
        self._plan = network.plan
        self._network = placement.place(network, torch.float32)
        self._autoencoder = Autoencoder(autoencoder, placement.device)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w]; UserError for labels, parents or settings that do not fit."""
        require_first_stage(batch, self._file)
        require_labels(batch, self._plan.classes - 1, self._file)
        require_mean_flow(settings, self._file)
        condition = torch.tensor(list(batch.labels), device=self._device)
        shape = (self._plan.channels, self._plan.side, self._plan.side)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, shape)) as noise:
            start = torch.from_numpy(noise()).to(self._device)
            return along_mean_velocity(self._network, start, condition, settings)

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        return self._autoencoder.decoded(self._scaled(latents))

    def _scaled(self, latents: Tensor) -> Tensor:
        """As the autoencoder takes them, from those of mean 0 and deviation 1."""
        mean, deviation = (
            torch.tensor(one, device=latents.device).view(1, -1, 1, 1) for one in (MEAN, DEVIATION)
        )
        files = self._autoencoder.files
        return (latents * deviation + mean - files.shift_factor) * files.scaling_factor


def along_mean_velocity(
    network: MeanFlowNetwork, noise: Tensor, condition: Tensor, settings: SamplerConfig
) -> Tensor:
    """float[N,C,H,W], from noise of that shape; condition int64[N]."""

    def each(value: float) -> Tensor:
        return noise.new_full((len(noise),), value)

    low, high = settings.guidance_interval or ALWAYS
    length, z = 1 / settings.steps, noise
    for _ in range(settings.steps):
        told = (condition, each(settings.guidance), (each(low), each(high)))
        z = z - length * network(z, each(length), *told)
    return z


def require_mean_flow(settings: SamplerConfig, source: object) -> None:
    """UserError for a sampler of other networks."""
    if settings.method != MEAN_FLOW:
        raise UserError(
            f"{source} says a mean velocity: its sampler needs method = {MEAN_FLOW!r}, steps, "
            "guidance and guidance_interval"
        )
    if settings.threshold != "none":
        raise UserError('a flow has no estimate to clip: its sampler needs threshold = "none"')
    if settings.guidance == 0:
        raise UserError(f"{source} is told 1 - 1 / guidance: give a guidance above 0")
    if settings.noise_augmentation != 0:
        raise UserError(f"{source} knows no noise in parents: leave noise_augmentation 0")
