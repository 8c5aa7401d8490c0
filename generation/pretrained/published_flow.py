"""Published networks that lead along a linear path from noise to what an image is made of: sampled,
guided by labels, decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from generation.diffusion.flow import flow_sample, require_flow
from generation.diffusion.flow_times import acts_at
from generation.diffusion.guidance import Bound, always, autoguided
from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch
from generation.networks.guided_transformer import Channels, GuidedTransformer, Network
from generation.networks.placement import Placement
from generation.pretrained.components import require_first_stage, require_labels
from generation.pretrained.decoding import DecodingGenerator
from release.errors import UserError


def as_said(said: Tensor, _x: Tensor, _time: float) -> Tensor:
    """Of a network that says the velocity."""
    return said


@dataclass(frozen=True)
class PublishedFlow:
    """network: of x float[N,C,H,W], time float[N] from 0, noise, to 1, data, and classes int64[N].
    shape: C, H, W. classes: without the null class, which stands after them. decoded: float32 of
    that shape => images, float[N,3,H,W] in [-1, 1]. velocity: of what the network says, x and the
    time. guided: channels, of so many; None for all. noise: the deviation of the start. guide: a
    weaker network, called as the other, which guidance leads away from on all channels.
    """

    network: Network
    shape: tuple[int, int, int]
    classes: int
    decoded: Callable[[Tensor], Tensor]
    velocity: Callable[[Tensor, Tensor, float], Tensor] = as_said
    guided: Channels | None = None
    noise: float = 1.0
    guide: Network | None = None


class FlowGenerator(DecodingGenerator):
    """Samples one; a class is its label."""

    def __init__(self, file: Path, flow: PublishedFlow, placement: Placement) -> None:
        self._file, self._flow, self._placement = file, flow, placement

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,H,W]; UserError for labels, parents or settings that do not fit."""
        flow, device = self._flow, self._placement.device
        require_first_stage(batch, self._file)
        require_labels(batch, flow.classes, self._file)
        self._require_settings(settings)
        network = self._guided(torch.tensor(list(batch.labels), device=device), settings)
        with torch.inference_mode(), ahead_of_need(image_noise(batch.seeds, flow.shape)) as noise:
            return flow_sample(
                lambda x, t: flow.velocity(network(x, t)[0], x, t),
                settings,
                lambda: flow.noise * torch.from_numpy(noise()).to(device),
            )

    def decoded(self, latents: Tensor) -> Tensor:
        """float[N,3,H,W] in [-1, 1]."""
        return self._flow.decoded(latents)

    def _guided(self, labels: Tensor, settings: SamplerConfig) -> Bound:
        flow, weight = self._flow, settings.guidance
        acts = partial(acts_at, settings.guidance_interval)
        if flow.guide is None:
            return self._bound(flow.network, labels, weight, acts)
        strong, weak = (self._bound(one, labels, 1.0) for one in (flow.network, flow.guide))
        return autoguided(strong, weak, weight, acts)

    def _bound(
        self,
        network: Network,
        labels: Tensor,
        guidance: float,
        acts: Callable[[float], bool] = always,
    ) -> GuidedTransformer:
        flow, dtype = self._flow, self._placement.dtype
        return GuidedTransformer(network, labels, flow.classes, guidance, dtype, acts, flow.guided)

    def _require_settings(self, settings: SamplerConfig) -> None:
        require_flow(settings)
        if settings.noise_augmentation != 0:
            raise UserError(f"{self._file} knows no noise in parents: leave noise_augmentation 0")
        if settings.method == "euler-maruyama" and self._flow.noise != 1:
            raise UserError(
                f"{self._file} begins at noise of deviation {self._flow.noise:g}, which the SDE "
                "does not know: sample it by euler, heun or heun-euler"
            )


def from_data(network: Network) -> Network:
    """One whose time counts from 0, data, and whose velocity leads to noise, as others are called:
    where x_s = (1 - s) x + s eps, v(x, t) = -u(x, 1 - t)."""
    return lambda x, time, condition: -network(x, 1 - time, condition)


def normalised_channels(
    decoded: Callable[[Tensor], Tensor], mean: Tensor, deviation: Tensor
) -> Callable[[Tensor], Tensor]:
    """`decoded`, from latents less their mean and over their deviation, each float32[C]."""
    mean, deviation = mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)
    return lambda latents: decoded(latents * deviation + mean)
