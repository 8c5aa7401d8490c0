"""Sampling OpenAI's class-conditional U-Nets: ADM, its upsampler, Improved DDPM.

As in the papers' code: learned variance (Nichol & Dhariwal 2021, eq. 15), steps spread evenly from
T - 1 to 0, a label per image, no null class. The upsampler sees its parent enlarged bilinearly
beside the noisy image, without augmentation. Each image's noise comes from its own seed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.adm.converter import Heads, convert_unet
from generation.families.adm.generators import UPSCALING
from generation.generator import ImageBatch, Screened
from generation.networks.placement import Placement
from generation.pretrained.components import require_first_stage, require_labels, to_uint8
from generation.pretrained.source_files import read_tensors
from release.errors import UserError


@dataclass(frozen=True)
class Network:
    """What a checkpoint's tensors do not tell. enlarges: the stage has parents."""

    heads: Heads
    schedule: ScheduleConfig
    enlarges: bool = False


LINEAR = ScheduleConfig(name="linear", num_steps=1000, beta_start=1e-4, beta_end=0.02)
NETWORKS = {
    # Dhariwal & Nichol 2021: heads of 64 channels; q, k, v in the new order at 64 px alone
    "adm-64": Network(Heads(width=64, legacy=False), ScheduleConfig(name="cosine", num_steps=1000)),
    "adm-256": Network(Heads(width=64), LINEAR),  # and 512 px
    "adm-upsampler": Network(Heads(count=4), LINEAR, enlarges=True),
    # Nichol & Dhariwal 2021
    "iddpm": Network(Heads(count=4), ScheduleConfig(name="cosine", num_steps=4000)),
}


class GuidedDiffusion:
    """Samples one stage; the checkpoint's label order is ImageNet's sorted wnids."""

    def __init__(self, file: Path, network: Network, placement: Placement) -> None:
        self._file = file
        self._network = network
        self._placement = placement
        unet = convert_unet(read_tensors(file), network.heads, str(file))
        if unet.config.in_channels != (6 if network.enlarges else 3):
            raise UserError(f"{file} takes {unet.config.in_channels} channels: another generator's")
        if unet.config.num_class_embeds is None:
            raise UserError(f"{file} is not class-conditional")
        self._unet = placement.place(unet)

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3]; UserError for labels, parents or settings that do not fit."""
        self._check(batch, settings)
        labels = torch.tensor(list(batch.labels), device=self._placement.device)
        side = self._unet.config.sample_size
        with (
            torch.inference_mode(),
            ahead_of_need(image_noise(batch.seeds, (3, side, side))) as noise,
        ):
            parent = self._parent(batch)

            def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
                inputs = x if parent is None else torch.cat([x, parent], dim=1)
                inputs = inputs.to(self._placement.dtype, memory_format=torch.channels_last)
                times = torch.full((len(x),), t, device=x.device)
                out = self._unet(inputs, times, labels, return_dict=False)[0].float()
                epsilon, variance = out.split([3, out.shape[1] - 3], dim=1)
                return epsilon, variance if variance.shape[1] else None

            schedule = NoiseSchedule(self._network.schedule)
            x0 = sample(denoise, schedule, "epsilon", settings, lambda: self._tensor(noise()))
            return to_uint8(x0)

    def _parent(self, batch: ImageBatch) -> Tensor | None:
        """float32[N,3,H,W] in [-1, 1], the parents enlarged."""
        if batch.parents is None:
            return None
        side = self._unet.config.sample_size
        image = self._tensor(batch.parents.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        return F.interpolate(image, (side, side), mode="bilinear", align_corners=False)

    def _check(self, batch: ImageBatch, settings: SamplerConfig) -> None:
        config = self._unet.config
        if self._network.enlarges:
            side = config.sample_size // UPSCALING
            given = None if batch.parents is None else batch.parents.shape[1]
            if given != side:
                got = "none" if given is None else f"{given} px"
                raise UserError(f"{self._file} enlarges images of {side} px, got {got}")
        else:
            require_first_stage(batch, self._file)
        require_labels(batch, config.num_class_embeds, self._file)
        if settings.guidance != 1:
            raise UserError(f"{self._file} has no null class: guidance must stay 1")
        if settings.gamma != 0 and config.out_channels > 3:
            raise UserError(f"{self._file} learned its variance: gamma has no effect, leave it 0")
        if settings.noise_augmentation != 0:
            raise UserError(f"{self._file} was trained without noise_augmentation: leave it 0")

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._placement.device)
