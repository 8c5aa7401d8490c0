"""Sampling OpenAI's class-conditional U-Nets: ADM, its upsampler, Improved DDPM.

As in the papers' code: learned variance (Nichol & Dhariwal 2021, eq. 15), steps spread evenly from
T - 1 to 0, a label per image, no null class. The upsampler sees its parent enlarged bilinearly
beside the noisy image, without augmentation. Each image's noise comes from its own seed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.guidance import autoguided
from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import Denoiser, sample, split_variance
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import acting
from generation.families.adm.converter import convert_unet
from generation.families.adm.networks import Network
from generation.families.adm.recipe import UPSCALING
from generation.generator import ImageBatch, Screened
from generation.networks.guide_fit import guide_difference
from generation.networks.pixels import start_of
from generation.networks.placement import Placement
from generation.pretrained.components import require_first_stage, require_labels, to_uint8
from generation.pretrained.source_files import read_tensors
from release.errors import UserError


def enlarge(image: Tensor, side: int) -> Tensor:
    """[N,3,h,w] to [N,3,side,side], bilinear as the upsampler was trained."""
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False)


def labelled_denoiser(
    unet: Any, labels: Tensor, parent: Tensor | None, dtype: torch.dtype
) -> Denoiser:
    """labels int64[N]; parent float[N,3,H,W], enlarged, joins the channels."""

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        inputs = x if parent is None else torch.cat([x, parent], dim=1)
        inputs = inputs.to(dtype, memory_format=torch.channels_last)
        times = torch.full((len(x),), t, device=x.device)
        return split_variance(unet(inputs, times, labels, return_dict=False)[0].float(), 3)

    return denoise


class GuidedDiffusion:
    """Samples one stage; the checkpoint's label order is ImageNet's sorted wnids.

    guide: a weaker network, which guidance leads away from; UserError for one of other images or
    classes.
    """

    def __init__(
        self, file: Path, network: Network, placement: Placement, guide: Path | None = None
    ) -> None:
        self._file = file
        self._network = network
        self._placement = placement
        self._unet = self._placed(file)
        self._guide = None if guide is None else self._placed(guide)
        if self._guide is not None:
            task, found = (_task(one) for one in (self._unet, self._guide))
            if problem := guide_difference(task, found):
                raise UserError(f"guide {guide} {problem}")

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
            schedule = NoiseSchedule(self._network.schedule)
            denoise = self._denoiser(labels, parent, schedule, settings)
            start = start_of(batch, 3, torch.device(self._placement.device))
            x0 = sample(
                denoise, schedule, "epsilon", settings, lambda: self._tensor(noise()), start=start
            )
            return to_uint8(x0)

    def _placed(self, file: Path) -> Any:
        unet = convert_unet(read_tensors(file), self._network.heads, str(file))
        if unet.config.in_channels != (6 if self._network.enlarges else 3):
            raise UserError(f"{file} takes {unet.config.in_channels} channels: another generator's")
        if unet.config.num_class_embeds is None:
            raise UserError(f"{file} is not class-conditional")
        return self._placement.place(unet)

    def _denoiser(
        self,
        labels: Tensor,
        parent: Tensor | None,
        schedule: NoiseSchedule,
        settings: SamplerConfig,
    ) -> Denoiser:
        dtype = self._placement.dtype
        strong = labelled_denoiser(self._unet, labels, parent, dtype)
        if self._guide is None:
            return strong
        weak = labelled_denoiser(self._guide, labels, parent, dtype)
        return autoguided(strong, weak, settings.guidance, acting(schedule, settings))

    def _parent(self, batch: ImageBatch) -> Tensor | None:
        """float32[N,3,H,W] in [-1, 1], the parents enlarged."""
        if batch.parents is None:
            return None
        side = self._unet.config.sample_size
        image = self._tensor(batch.parents.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        return enlarge(image, side)

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
        if settings.guidance != 1 and self._guide is None:
            raise UserError(
                f"{self._file} has no null class: guidance must stay 1, or name a weaker network "
                "as the stage's guide"
            )
        if settings.gamma != 0 and config.out_channels > 3:
            raise UserError(f"{self._file} learned its variance: gamma has no effect, leave it 0")
        if settings.noise_augmentation != 0:
            raise UserError(f"{self._file} was trained without noise_augmentation: leave it 0")

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._placement.device)


def _task(unet: Any) -> dict[str, int]:
    """In which a guide must be as the network that it guides."""
    return {"images of side": unet.config.sample_size, "classes": unet.config.num_class_embeds}
