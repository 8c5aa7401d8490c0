"""The transformer of generation/networks/transformer.py as a family's network."""

from typing import Any

from torch import Tensor

from generation.denoisers.latents import seen_by
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig
from generation.families.diffusion_transformer.recipe import TransformerShape
from generation.networks.transformer import Transformer, TransformerPlan


class TransformerDenoiser(Denoiser):
    """Says twice as many channels as it sees: of DiT the second half are its variance, of SiT they
    are nothing, as in their authors' networks."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        self.body = Transformer(plan_of(config))

    @property
    def seen(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents, or of the images."""
        return seen_by(self.config)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None = None,
        carried: Any = None,
    ) -> tuple[Tensor, None]:
        """log_snr: here the time as its family counts it, float[N]: steps of the schedule (DiT), or
        from 0, noise, to 1, data (SiT). Returns float[N,2C,H,W], and nothing to carry."""
        assert parent is None
        assert carried is None
        said: Tensor = self.body(x, log_snr, condition)
        return said, None


def plan_of(config: DenoiserConfig) -> TransformerPlan:
    """The transformer's shape; ValueError for one that cannot be."""
    shape: TransformerShape = config.network
    width, depth, heads = shape.dimensions
    channels, side, _ = seen_by(config)
    return TransformerPlan(
        side=side,
        channels=channels,
        out_channels=2 * channels,
        classes=len(config.classes),
        patch=shape.patch,
        width=width,
        depth=depth,
        heads=heads,
    )
