"""The U-Net of latent diffusion (Rombach et al. 2022, section 3.3 and appendix E.2.1).

OpenAI's U-Net, whose attention layers are transformer blocks: self-attention, then attention to
what the network is told, then an MLP. Of a class that is one vector y, learned:

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V;   Q = W_Q phi(x_t), K = W_K y, V = W_V y

The network is diffusers', as the reader of the authors' files makes it.
"""

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from generation.denoisers.latents import seen_by
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.converter import new_unet
from generation.families.adm.shapes import Heads, Shape
from generation.families.latent_diffusion.recipe import LatentDiffusionShape
from generation.networks.blocks import zeroed


class LatentUNet(Denoiser):
    """Predicts epsilon."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: LatentDiffusionShape = config.network
        self._schedule = NoiseSchedule(config.stage.schedule)
        self.classes = nn.Embedding(len(config.classes), shape.context)
        self.unet: Any = new_unet(_shape(shape, config), Heads(count=shape.heads), "[network]")
        _start_as_identity(self.unet)

    @property
    def seen(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents, or of the images."""
        return seen_by(self.config)

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """epsilon, float[N,C,H,W]; it carries nothing."""
        assert parent is None
        assert carried is None
        context = self.classes(condition)[:, None]  # [N,1,D]
        said: Tensor = self.unet(x, self._step(log_snr), context, return_dict=False)[0]
        return said, None

    def _step(self, log_snr: Tensor) -> Tensor:
        """int64[N]: steps of the schedule, by which the network knows a noise level."""
        table = torch.from_numpy(self._schedule.log_snr).float().to(log_snr.device)
        return (table - log_snr.float()[:, None]).abs().argmin(dim=1)


def _shape(shape: LatentDiffusionShape, config: DenoiserConfig) -> Shape:
    channels, side, _ = seen_by(config)
    levels = range(len(shape.multipliers))
    return Shape(
        in_channels=channels,
        out_channels=channels,
        widths=tuple(shape.base_channels * multiplier for multiplier in shape.multipliers),
        attends=tuple(side >> level in shape.attention for level in levels),
        blocks=shape.blocks,
        resblock_updown=False,
        scale_shift=False,
        classes=None,
        context=shape.context,
        depth=shape.depth,
    )


def _start_as_identity(unet: Any) -> None:
    """As in the authors' code: blocks add nothing at first, and the network says zero."""
    for part in unet.modules():
        if isinstance(part, ResnetBlock2D):
            zeroed(part.conv2)
        elif isinstance(part, Transformer2DModel):
            zeroed(part.proj_out)
    zeroed(unet.conv_out)
