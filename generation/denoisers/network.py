"""A denoising network as its training and its sampler see it, whatever its architecture."""

import torch
from torch import Tensor, nn

from generation.denoisers.loss_history import LossHistory
from generation.denoisers.recipe import DenoiserConfig
from generation.diffusion.scaling import unit_variance
from generation.diffusion.schedule import NoiseSchedule


class Denoiser(nn.Module):
    """A network with its config; a family's own implements `predict`.

    history: the losses by which its training draws steps; no part of a checkpoint.
    """

    history: LossHistory | None

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.history = None

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

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        state: dict[str, Tensor] = self.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.startswith("history.")}

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


def nearest_step(schedule: NoiseSchedule, log_snr: Tensor) -> Tensor:
    """int64[N]: the steps of the schedule whose noise levels are nearest to log_snr, float[N]."""
    table = torch.from_numpy(schedule.log_snr).float().to(log_snr.device)
    return (table - log_snr.float()[:, None]).abs().argmin(dim=1)
