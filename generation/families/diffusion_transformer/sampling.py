"""Sampling DiT and SiT, networks of this project, from their own checkpoints or their authors'.

Guidance is as in their code: of latents of four channels the first three are guided, the fourth is
the conditional half's. Of other latents, of pixels and by REPA all channels are.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation.denoisers.latent_sampling import autoencoder_of
from generation.denoisers.latents import latent_stage
from generation.diffusion.flow import flow_sample, require_flow
from generation.diffusion.flow_times import acts_at
from generation.diffusion.guidance import Bound, always, autoguided
from generation.diffusion.noise import ahead_of_need, image_noise
from generation.diffusion.sampler import sample
from generation.diffusion.sampler_config import SamplerConfig
from generation.diffusion.schedule import NoiseSchedule
from generation.diffusion.steps import acting
from generation.families.diffusion_transformer.converter import convert
from generation.families.diffusion_transformer.layout import Layout
from generation.families.diffusion_transformer.network import TransformerDenoiser
from generation.families.diffusion_transformer.recipe import LINEAR
from generation.generator import ImageBatch
from generation.networks.guide_fit import guide_difference
from generation.networks.guided_transformer import GuidedTransformer
from generation.networks.placement import Placement
from generation.networks.transformer import Transformer, TransformerPlan
from generation.pretrained.autoencoder import Autoencoder
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.components import (
    require_first_stage,
    require_labels,
    require_of_latents,
)
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.published_flow import from_data
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

AVERAGE = "ema"  # the averaged network of a training's file


def sampled_latents(
    network: Bound,
    schedule: NoiseSchedule | None,
    shape: tuple[int, int, int],
    seeds: list[int],
    settings: SamplerConfig,
    device: Any,
) -> Tensor:
    """float32[N,*shape]: of DiT along its schedule, of SiT (None) along the linear path."""
    with torch.inference_mode(), ahead_of_need(image_noise(seeds, shape)) as noise:

        def draw() -> Tensor:
            return torch.from_numpy(noise()).to(device)

        if schedule is None:
            return flow_sample(lambda x, t: network(x, t)[0], settings, draw)
        return sample(network, schedule, "epsilon", settings, draw)


class TransformerGenerator(DecodingGenerator):
    """Samples a network that was trained here."""

    def __init__(
        self, network: TransformerDenoiser, guide: TransformerDenoiser | None = None
    ) -> None:
        stage = latent_stage(network.config)
        self._network, self._guide, self._stage = network, guide, stage
        self._schedule = None if stage.prediction == "v" else NoiseSchedule(stage.schedule)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w]; UserError for parents, classes or settings that do not fit."""
        network, latents = self._network, self._stage.latents
        require_first_stage(batch, "the checkpoint")
        unconditional = self._stage.conditioning == "none"
        if unconditional and self._guide is None and settings.guidance != 1:
            raise UserError("an unconditional checkpoint has nothing to guide by: leave guidance 1")
        require_settings(settings, "the checkpoint", self._schedule, latent=latents is not None)
        device = next(network.parameters()).device
        autoencoder_of(network)  # it is not to be loaded beside sampling
        return sampled_latents(
            self._guided(list(batch.prompts), settings),
            self._schedule,
            network.seen,
            list(batch.seeds),
            settings,
            device,
        )

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,C,H,W], about in [-1, 1]."""
        autoencoder = autoencoder_of(self._network)
        return latents if autoencoder is None else autoencoder.decoded(latents)

    def _guided(self, prompts: list[str], settings: SamplerConfig) -> Bound:
        weight, acts = settings.guidance, _acting(self._schedule, settings)
        if self._guide is None:
            return bound_transformer(self._network, prompts, weight, acts)
        strong, weak = (
            bound_transformer(one, prompts, 1.0) for one in (self._network, self._guide)
        )
        return autoguided(strong, weak, weight, acts)


def _acting(schedule: NoiseSchedule | None, settings: SamplerConfig) -> Callable[[Any], bool]:
    """Whether guidance acts at a step of DiT's schedule, or at a time of SiT's path (None)."""
    if schedule is None:
        return partial(acts_at, settings.guidance_interval)
    return acting(schedule, settings)


def bound_transformer(
    network: TransformerDenoiser,
    prompts: list[str],
    guidance: float,
    acts: Callable[[Any], bool] = always,
) -> GuidedTransformer:
    """Told the classes of a batch, and guided by itself, told none."""
    weight = next(network.parameters())
    return GuidedTransformer(
        lambda x, t, c: network(x, t, c)[0],
        network.conditions(prompts).to(weight.device),
        network.null_condition,
        guidance,
        weight.dtype,
        acts,
    )


class PublishedTransformer(DecodingGenerator):
    """Samples a checkpoint in its authors' layout and decodes its latents; a class is its label.

    guide: a weaker one, which guidance leads away from; UserError for one of other latents or
    classes.
    """

    def __init__(
        self,
        file: Path,
        autoencoder: AutoencoderFiles,
        placement: Placement,
        layout: Layout,
        guide: Path | None = None,
    ) -> None:
        self._file, self._placement, self._layout = file, placement, layout
        self._network = self._placed(file)
        self._plan = self._network.plan
        self._guide = None if guide is None else self._placed(guide)
        if self._guide is not None:
            task, found = (_task(one.plan) for one in (self._network, self._guide))
            if problem := guide_difference(task, found):
                raise UserError(f"guide {guide} {problem}")
        self._autoencoder = Autoencoder(autoencoder, placement.device)
        self._schedule = None if layout.flow else NoiseSchedule(LINEAR)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w]; UserError for labels, parents or settings that do not fit."""
        require_first_stage(batch, self._file)
        require_labels(batch, self._plan.classes - 1, self._file)
        require_settings(settings, self._file, self._schedule, latent=True)
        device, plan = self._placement.device, self._plan
        guided = self._guided(torch.tensor(list(batch.labels), device=device), settings)
        shape = (plan.channels, plan.side, plan.side)
        return sampled_latents(guided, self._schedule, shape, list(batch.seeds), settings, device)

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        return self._autoencoder.decoded(latents)

    def _placed(self, file: Path) -> Transformer:
        network: Transformer = convert(self._layout.renamed(published_tensors(file)), str(file))
        return self._placement.place(network)

    def _guided(self, labels: Tensor, settings: SamplerConfig) -> Bound:
        weight, acts = settings.guidance, _acting(self._schedule, settings)
        if self._guide is None:
            return self._bound(self._network, labels, weight, acts)
        strong, weak = (self._bound(one, labels, 1.0) for one in (self._network, self._guide))
        return autoguided(strong, weak, weight, acts)

    def _bound(
        self,
        network: Transformer,
        labels: Tensor,
        guidance: float,
        acts: Callable[[Any], bool] = always,
    ) -> GuidedTransformer:
        return GuidedTransformer(
            from_data(network) if self._layout.reversed else network,
            labels,
            self._plan.classes - 1,
            guidance,
            self._placement.dtype,
            acts,
            self._layout.guided,
        )


def _task(plan: TransformerPlan) -> dict[str, int]:
    """In which a guide must be as the network that it guides."""
    return {"latents of side": plan.side, "channels": plan.channels, "classes": plan.classes}


def published_tensors(file: Path) -> dict[str, Tensor]:
    """Of the network; of the averaged one where a training's file has both."""
    return read_tensors(file, AVERAGE)


def require_settings(
    settings: SamplerConfig, source: object, schedule: NoiseSchedule | None, *, latent: bool
) -> None:
    """UserError for settings that have no effect, or cannot be."""
    if settings.noise_augmentation != 0:
        raise UserError(f"{source} knows no noise in parents: leave noise_augmentation 0")
    if schedule is None:
        require_flow(settings)
        return
    if settings.gamma != 0:
        raise UserError(f"{source} learned its variance: gamma has no effect, leave it 0")
    if latent:
        require_of_latents(settings, source)
