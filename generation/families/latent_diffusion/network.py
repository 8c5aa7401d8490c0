"""The U-Net of latent diffusion (Rombach et al. 2022, section 3.3 and appendix E.2.1).

OpenAI's U-Net, whose attention layers are transformer blocks: self-attention, then attention to
what the network is told, then an MLP. Of a class that is one vector y, learned:

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V;   Q = W_Q phi(x_t), K = W_K y, V = W_V y

The network is diffusers', as the reader of the authors' files makes it.
"""

from typing import Any

from torch import Tensor, nn

from generation.denoisers.latents import seen_by
from generation.denoisers.network import Denoiser, nearest_step
from generation.denoisers.recipe import DenoiserConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.converter import new_unet
from generation.families.adm.layers import start_as_identity
from generation.families.adm.shapes import Heads, Shape
from generation.families.latent_diffusion.recipe import LatentDiffusionShape


class LatentUNet(Denoiser):
    """Predicts epsilon."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: LatentDiffusionShape = config.network
        self._schedule = NoiseSchedule(config.stage.schedule)
        self.classes = nn.Embedding(len(config.classes), shape.context)
        self.unet: Any = new_unet(_shape(shape, config), Heads(count=shape.heads), "[network]")
        start_as_identity(self.unet)

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
        step = nearest_step(self._schedule, log_snr)
        said: Tensor = self.unet(x, step, context, return_dict=False)[0]
        return said, None


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
        groups=shape.groups,
    )
