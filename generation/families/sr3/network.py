"""SR3's network (Saharia et al. 2021, section 2.4 and appendix A).

The U-Net of Ho et al. 2020 with the residual blocks of BigGAN, in which sides change, and sums
divided by sqrt(2), as Song et al. 2021 have them. A parent is enlarged by bicubic interpolation and
stands beside the noisy image as further channels. The noise level is told as sqrt(abar).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.families.sr3.recipe import SR3Shape
from generation.networks.blocks import Embedding
from generation.networks.unet import Level, UNetBody, UNetPlan

EMBEDDING = 4  # times the base channels, as in Ho et al. 2020
HALF_SUM = 0.5**0.5


class SR3(Denoiser):
    """Predicts epsilon."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: SR3Shape = config.network
        width = EMBEDDING * shape.base_channels
        self.embedding = Embedding(shape.base_channels, width, len(config.classes))
        self.body = UNetBody(_plan(shape, config))

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """epsilon, float[N,C,H,W]; it carries nothing."""
        assert carried is None
        if parent is not None:
            x = torch.cat([x, enlarged(parent, self.config.stage.resolution)], dim=1)
        signal = (F.logsigmoid(log_snr) / 2).exp()  # sqrt(abar)
        said: Tensor = self.body(x, self.embedding(signal, condition))
        return said, None


def enlarged(parent: Tensor, side: int) -> Tensor:
    """Bicubic, within [-1, 1]: float[N,C,h,w] => float[N,C,side,side]."""
    image = F.interpolate(parent, size=(side, side), mode="bicubic", align_corners=False)
    return image.clamp(-1, 1)


def _plan(shape: SR3Shape, config: DenoiserConfig) -> UNetPlan:
    images = 1 if config.stage.low_resolution is None else 2
    levels = [
        Level(
            shape.base_channels * multiplier,
            shape.blocks,
            config.stage.resolution >> number in shape.attention,
            shape.dropout,
        )
        for number, multiplier in enumerate(shape.multipliers)
    ]
    return UNetPlan(
        levels,
        enter=images * config.channels,
        leave=config.channels,
        base=shape.base_channels,
        embedding=EMBEDDING * shape.base_channels,
        heads=shape.heads,
        groups=shape.groups,
        middle_dropout=shape.dropout,
        scale=HALF_SUM,
        in_blocks=True,
    )
