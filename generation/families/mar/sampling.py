"""Sampling MAR: tokens in an order of the image's own, some at a step, each by a diffusion.

After step s of S as many of T tokens are still masked as a cosine says, at least one fewer than
before. Tokens of a step are drawn independently, by DDPM with a learned variance, respaced from
1,000 cosine steps, its noise times the temperature. Guidance grows with the tokens that are known:
w = 1 + (guidance - 1) * known / T, of the noise that is said, not of its variance.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import cos, floor, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation.diffusion.noise import ImageStreams, ahead_of_need, permutations
from generation.diffusion.sampler import Denoiser, sample, split_variance
from generation.diffusion.sampler_config import MASKED, SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families.mar.autoencoder import SCALE, KLFile, load_kl_16
from generation.families.mar.converter import convert
from generation.families.mar.network import MAR, TokenDenoiser, with_places
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.autoencoder import decoded_by
from generation.pretrained.components import require_first_stage, require_labels
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.source_files import read_tensors
from release.errors import UserError

AVERAGE = "model_ema"  # of what a training's file keeps
SCHEDULE = NoiseSchedule(ScheduleConfig(name="cosine", num_steps=1000))


class MARGenerator(DecodingGenerator):
    """Samples a checkpoint in its authors' layout; a class is its label."""

    def __init__(self, file: Path, autoencoder: KLFile, placement: Placement) -> None:
        self._file, self._device = file, placement.device
        network = convert(read_tensors(file, AVERAGE), str(file))
        self._autoencoder: Any = load_kl_16(autoencoder).to(placement.device)
        channels = self._autoencoder.config.latent_channels
        if network.plan.channels != channels:
            raise UserError(
                f"{file} makes tokens of {network.plan.channels} channels, {autoencoder.file} has "
                f"latents of {channels}"
            )
        # steps differ in how many tokens are known, calls of the denoiser hardly
        self._network = replace(placement, compile=False).place(network)
        placement.arrange(self._network.denoiser)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,h,w]; UserError for labels, parents or settings that do not fit."""
        plan = self._network.plan
        require_first_stage(batch, self._file)
        require_labels(batch, plan.classes - 1, self._file)
        require_masked(settings, self._file)
        labels = torch.tensor(list(batch.labels), device=self._device)
        with torch.inference_mode():
            tokens = drawn_tokens(self._network, labels, batch.seeds, settings)
            latents: Tensor = tokens.transpose(1, 2).unflatten(2, (plan.grid, plan.grid))
            return latents

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        return decoded_by(self._autoencoder, latents / SCALE)


def require_masked(settings: SamplerConfig, source: object) -> None:
    """UserError for a sampler of other networks."""
    if settings.method != MASKED:
        raise UserError(
            f"{source} draws tokens in a random order: its sampler needs method = {MASKED!r}, "
            "steps, diffusion_steps, guidance and temperature"
        )
    if settings.threshold != "none":
        raise UserError('tokens have no bounds to clip to: their sampler needs threshold = "none"')
    if settings.noise_augmentation != 0:
        raise UserError(f"{source} knows no noise in parents: leave noise_augmentation 0")


def masked_after(steps: int, tokens: int) -> list[int]:
    """How many tokens are masked after each step, by the cosine: 1 after the last, which draws it
    all the same."""
    left, found = tokens, []
    for step in range(1, steps + 1):
        left = max(1, min(left - 1, floor(tokens * cos(pi / 2 * step / steps))))
        found.append(left)
    return found


def drawn_tokens(network: MAR, labels: Tensor, seeds: Any, settings: SamplerConfig) -> Tensor:
    """float32[N,T,C]. labels int64[N]; seeds int[N], from which order and noise of each come."""
    plan, device = network.plan, labels.device
    order = torch.from_numpy(permutations(seeds, plan.tokens)).to(device)
    tokens = torch.zeros(len(labels), plan.tokens, plan.channels, device=device)
    guided = settings.guidance != 1
    null = torch.full_like(labels, plan.classes - 1)
    condition = torch.cat([labels, null]) if guided else labels
    steps = list(_steps(settings.steps, plan.tokens))
    depth = settings.diffusion_steps or 1
    streams = ImageStreams(seeds)
    batches = (streams.normal(depth, before - after, plan.channels) for before, after, _ in steps)
    with ahead_of_need(batches) as noise:
        for before, after, known in steps:
            asked = order[:, after:before]
            places = order[:, before:].sort(dim=1).values
            told = network(*(_twice(one, guided) for one in (tokens, places, asked)), condition)
            weight = 1 + (settings.guidance - 1) * known / plan.tokens
            denoise = _bound(network.denoiser, told.flatten(0, 1), plan.channels, weight, guided)
            new = diffused(denoise, torch.from_numpy(noise()).to(device), settings)
            tokens = with_places(tokens, asked, new)
    return tokens


def _steps(steps: int, tokens: int) -> Iterator[tuple[int, int, int]]:
    """Tokens masked before and after each step that draws any, and as how many known it guides."""
    before = tokens
    for step, left in enumerate(masked_after(steps, tokens), start=1):
        after = left if step < steps else 0
        if after < before:
            yield before, after, tokens - left
        before = after


def _twice(x: Tensor, guided: bool) -> Tensor:
    return torch.cat([x, x]) if guided else x


def _bound(
    network: TokenDenoiser, told: Tensor, channels: int, weight: float, guided: bool
) -> Denoiser:
    """Of x float32[M,C], M tokens; told of them, and if guided of the null class's, too."""

    def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        time = torch.full((len(told),), t, device=x.device)
        said, variance = split_variance(network(_twice(x, guided), time, told), channels)
        if not guided or variance is None:
            return said, variance
        m = len(x)
        return said[m:] + weight * (said[:m] - said[m:]), variance[:m]

    return denoise


def diffused(denoise: Denoiser, noise: Tensor, settings: SamplerConfig) -> Tensor:
    """float32[N,k,C]: tokens, of noise float32[N,D,k,C], the start first."""
    n, depth, k, _ = noise.shape
    start, *later = noise.transpose(0, 1).flatten(1, 2)
    given = iter([start, *(settings.temperature * one for one in later)])
    ddpm = SamplerConfig(steps=depth, threshold="none")
    tokens = sample(denoise, SCHEDULE, "epsilon", ddpm, lambda: next(given))
    placed: Tensor = tokens.unflatten(0, (n, k))
    return placed
