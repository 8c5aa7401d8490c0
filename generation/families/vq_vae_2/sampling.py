"""Sampling VQ-VAE-2: top codes, bottom codes, one pass of the decoder."""

import numpy as np
import torch

from generation.diffusion.noise import uniform
from generation.diffusion.sampler_config import SamplerConfig
from generation.families.vq_vae_2.checkpoint import Networks
from generation.families.vq_vae_2.prior import Prior, drawn
from generation.families.vq_vae_2.recipe import BOTTOM, TOP
from generation.generator import ImageBatch, Screened
from generation.networks.pixels import to_rgb
from generation.pretrained.components import require_first_stage
from release.errors import UserError

SETTINGS = SamplerConfig(method="native", steps=1)


class CodeGenerator:
    """Draws each code from its probabilities, as the paper does at a temperature of 1."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        top, bottom = (networks.priors[name] for name in ("top", "bottom"))
        assert isinstance(top, Prior)
        assert isinstance(bottom, Prior)
        self._top, self._bottom = top, bottom

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray | Screened:
        """uint8[N,H,W,3]; UserError for parents, classes or settings that do not fit."""
        require_first_stage(batch, "the checkpoint")
        _require_native(settings)
        networks, device = self._networks, next(self._top.parameters()).device
        condition = torch.tensor(networks.config.indices(list(batch.prompts)), device=device)
        heat = settings.temperature
        tall, wide = networks.resolution // TOP, networks.resolution // BOTTOM
        numbers = torch.from_numpy(uniform(batch.seeds, tall**2 + wide**2)).to(device)
        with torch.inference_mode():
            first = numbers[:, : tall**2].view(-1, tall, tall)
            top = drawn(self._top, condition, first, temperature=heat)
            second = numbers[:, tall**2 :].view(-1, wide, wide)
            bottom = drawn(self._bottom, condition, second, top, heat)
            images = networks.autoencoder.images(top, bottom)
        return to_rgb(images.float().cpu().numpy())


def _require_native(settings: SamplerConfig) -> None:
    """UserError for settings that have no effect on codes."""
    if settings.method != "native":
        raise UserError('codes are drawn one by one: their sampler is { method = "native" }')
    if settings.guidance != 1 or settings.noise_augmentation != 0:
        raise UserError("codes are drawn without guidance, and from no parent: leave both out")
