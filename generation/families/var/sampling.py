"""Sampling VAR: each scale's codes from their probabilities, coarse to fine, then one decoding.

Guidance grows with the scales, as in the authors' code: w = 1 + (guidance - 1) * k / (K - 1) at
scale k of 0 to K - 1. An image's codes come from its own seed: each is where a uniform number falls
among the probabilities left by top-k and top-p.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from generation.diffusion.noise import uniform
from generation.diffusion.sampler_config import NEXT_SCALE, SamplerConfig
from generation.families.var.converter import convert_decoder, convert_transformer
from generation.families.var.decoder import MultiScaleDecoder
from generation.families.var.network import VAR, Kept
from generation.generator import ImageBatch
from generation.networks.placement import Placement
from generation.pretrained.components import require_first_stage, require_labels
from generation.pretrained.decoding import DecodingGenerator
from generation.pretrained.source_files import read_tensors
from release.errors import UserError


class VARGenerator(DecodingGenerator):
    """Samples a checkpoint in its authors' layout; a class is its label."""

    def __init__(self, file: Path, autoencoder: Path, placement: Placement) -> None:
        self._file, self._device = file, placement.device
        network = convert_transformer(read_tensors(file), str(file))
        decoder = convert_decoder(read_tensors(autoencoder), str(autoencoder))
        if (network.plan.codes, network.plan.code_width) != (
            decoder.plan.codes,
            decoder.plan.code_width,
        ):
            raise UserError(f"{file} and {autoencoder} are of different codebooks")
        self._network = placement.place(network)
        self._decoder = placement.place(decoder, torch.float32, replayed=False)

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float32[N,C,S,S], all maps of codes added; UserError for labels, parents or settings that
        do not fit."""
        plan = self._network.plan
        require_first_stage(batch, self._file)
        require_labels(batch, plan.classes - 1, self._file)
        require_next_scale(settings, self._file)
        labels = torch.tensor(list(batch.labels), device=self._device)
        numbers = torch.from_numpy(uniform(batch.seeds, plan.tokens)).to(self._device)
        with torch.inference_mode():
            return by_scales(self._network, self._decoder, labels, numbers, settings)

    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,3,H,W], about in [-1, 1]."""
        return torch.cat([self._decoder(one) for one in latents.split(1)])


def require_next_scale(settings: SamplerConfig, source: object) -> None:
    """UserError for a sampler of other networks."""
    if settings.method != NEXT_SCALE:
        raise UserError(
            f"{source} says codes scale by scale: its sampler needs method = {NEXT_SCALE!r}, "
            "steps = 1, guidance, top_k and top_p"
        )
    if settings.threshold != "none":
        raise UserError('codes have no estimate to clip: their sampler needs threshold = "none"')
    if settings.noise_augmentation != 0:
        raise UserError(f"{source} knows no noise in parents: leave noise_augmentation 0")


def by_scales(
    network: VAR,
    decoder: MultiScaleDecoder,
    labels: Tensor,
    numbers: Tensor,
    settings: SamplerConfig,
) -> Tensor:
    """float32[N,C,S,S]: all maps of codes added. labels int64[N]; numbers float64[N,tokens] in
    [0, 1), one a code."""
    plan, n = network.plan, len(labels)
    guided = settings.guidance != 1
    null = torch.full_like(labels, plan.classes - 1)
    condition = torch.cat([labels, null]) if guided else labels
    kept: list[Kept | None] = [None] * plan.depth
    image = torch.zeros(n, plan.code_width, plan.scales[-1], plan.scales[-1], device=labels.device)
    begin = 0
    for scale, side in enumerate(plan.scales):
        place = scale / max(1, len(plan.scales) - 1)
        seen = None if scale == 0 else F.adaptive_avg_pool2d(image, side)
        if seen is not None and guided:
            seen = torch.cat([seen, seen])
        logits = network(scale, seen, condition, kept)
        if guided:
            weight = 1 + (settings.guidance - 1) * place
            logits = logits[n:] + weight * (logits[:n] - logits[n:])
        codes = drawn(logits, numbers[:, begin : begin + side**2], settings)
        image = decoder.added(image, codes.view(n, side, side), place)
        begin += side**2
    return image


def drawn(logits: Tensor, numbers: Tensor, settings: SamplerConfig) -> Tensor:
    """int64[N,l]: codes by float32[N,l,codes] and uniform float64[N,l]."""
    shares = kept_logits(logits.double(), settings.top_k, settings.top_p).softmax(-1).cumsum(-1)
    shares = shares / shares[..., -1:]
    return (shares <= numbers[..., None]).sum(-1)


def kept_logits(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Others become minus infinity: but the k greatest, and of those the greatest whose
    probabilities add up to p."""
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        ordered, places = logits.sort(dim=-1)
        dropped = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        dropped[..., -1] = False
        logits = logits.masked_fill(dropped.scatter(-1, places, dropped), -torch.inf)
    return logits
