"""A denoising network as its training and its sampler see it, whatever its architecture."""

import torch
from torch import Tensor, nn

from generation.denoisers.recipe import DenoiserConfig
from generation.diffusion.scaling import unit_variance


class Denoiser(nn.Module):
    """A network with its config; a family's own implements `predict`."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None = None,
        carried: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x float[N,C,H,W]; log_snr float[N], log(abar / (1 - abar)), how little noise is in it;
        condition int64[N]; parent float[N,C,h,w] in [-1, 1]; carried: what the call at the noisier
        step before returned beside its prediction, None for the first.

        Returns the prediction, float[N,C,H,W], and what the next call is to be given.
        """
        return self.predict(
            unit_variance(x, self.config.stage.schedule), log_snr, condition, parent, carried
        )

    def predict(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        parent: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """`forward`, with x as the network is to see it."""
        raise NotImplementedError

    @property
    def seen(self) -> tuple[int, int, int]:
        """Channels, height and width of x."""
        side = self.config.stage.resolution
        return (self.config.channels, side, side)

    @property
    def null_condition(self) -> int:
        return len(self.config.classes) - 1

    def conditions(self, prompts: list[str]) -> Tensor:
        """int64[N]; UserError for a class it lacks."""
        return torch.tensor(self.config.indices(prompts), dtype=torch.int64)
