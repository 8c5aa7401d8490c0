"""The U-Net of Nichol & Dhariwal 2021 (appendix A) and Dhariwal & Nichol 2021 (section 3).

Residual blocks with adaptive group norm, attention at several sides, classes and time as one
vector; half of its channels say the variance. A parent is enlarged bilinearly and stands beside the
noisy image as further channels. The network is diffusers', as the reader of the authors' files
makes it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generation.denoisers.network import Denoiser, nearest_step
from generation.denoisers.recipe import DenoiserConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.converter import new_unet
from generation.families.adm.layers import set_dropout, start_as_identity
from generation.families.adm.shapes import Heads, Shape
from generation.families.openai_unet.recipe import OpenAIShape

EMBEDDING = 4  # times the base channels


class OpenAIUNet(Denoiser):
    """Predicts epsilon and, where it learns its variance, v."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: OpenAIShape = config.network
        self.schedule = NoiseSchedule(config.stage.schedule)
        self.classes = nn.Embedding(len(config.classes), EMBEDDING * shape.base_channels)
        self.unet: Any = new_unet(plan_of(config), heads_of(shape), "[network]")
        self.unet.class_embedding = nn.Identity()  # it is given the embedded class
        set_dropout(self.unet, shape.dropout)
        start_as_identity(self.unet)

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """float[N,C or 2C,H,W]: epsilon, then v; it carries nothing."""
        assert carried is None
        if parent is not None:
            enlarged = F.interpolate(parent, x.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, enlarged], dim=1)
        return self.said(x, log_snr, self.classes(condition)), None

    def said(self, x: Tensor, log_snr: Tensor, told: Tensor) -> Tensor:
        """Of x with its parent's channels; told: float[N,D], what is added to the time's vector."""
        step = nearest_step(self.schedule, log_snr)
        out: Tensor = self.unet(x, step, told, return_dict=False)[0]
        return out


def plan_of(config: DenoiserConfig) -> Shape:
    """The shape, as the reader of the authors' files knows it."""
    shape: OpenAIShape = config.network
    images = 1 if config.stage.low_resolution is None else 2
    levels = range(len(shape.multipliers))
    return Shape(
        in_channels=images * config.channels,
        out_channels=config.channels * (2 if shape.variance == "learned" else 1),
        widths=tuple(shape.base_channels * multiplier for multiplier in shape.multipliers),
        attends=tuple(config.stage.resolution >> level in shape.attention for level in levels),
        blocks=shape.blocks,
        resblock_updown=shape.resblock_updown,
        scale_shift=True,
        classes=None,
        context=None,
        depth=0,
        groups=shape.groups,
    )


def heads_of(shape: OpenAIShape) -> Heads:
    """How attention parts its channels."""
    return Heads(count=shape.heads, width=shape.head_width)
