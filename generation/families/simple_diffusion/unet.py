"""Simple Diffusion's U-Net (Hoogeboom et al. 2023, section 3.3 and appendix B.1).

Most blocks stand at the level of 16 px, n on the way down and n + 1 on the way up, as its table 4
counts them. Dropout stands in low levels alone (section 3.4).
"""

from torch import Tensor

from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.families.simple_diffusion.recipe import UNetShape
from generation.families.simple_diffusion.telling import told_level
from generation.families.simple_diffusion.wavelet import from_bands, to_bands
from generation.networks.blocks import Embedding
from generation.networks.unet import Level, UNetBody, UNetPlan


class UNet(Denoiser):
    """Predicts v; `wavelet` of the shape has it see and say the bands of a wavelet."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        shape: UNetShape = config.network
        self.embedding = Embedding(shape.base_channels, shape.embedding, len(config.classes))
        self.body = UNetBody(_plan(shape, config))

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, None]:
        """v, float[N,C,H,W]; it is given no parent and carries nothing."""
        assert parent is None
        assert carried is None
        levels = self.config.network.wavelet
        h = self.embedding(told_level(log_snr), condition)
        return from_bands(self.body(to_bands(x, levels), h), levels), None


def _plan(shape: UNetShape, config: DenoiserConfig) -> UNetPlan:
    sides = shape.sides(config.stage.resolution)
    bands = config.channels * 4**shape.wavelet
    levels = [
        Level(width, count, side in shape.attention, shape.dropout_at(side))
        for width, count, side in zip(shape.widths, shape.blocks, sides, strict=True)
    ]
    return UNetPlan(
        levels,
        enter=bands,
        leave=bands,
        base=shape.base_channels,
        embedding=shape.embedding,
        heads=shape.heads,
        groups=shape.groups,
        middle_dropout=shape.dropout_at(sides[-1]),
    )
