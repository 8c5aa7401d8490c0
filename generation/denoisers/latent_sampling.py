"""Sampling of networks that may be on latents, which are decoded then."""

from torch import Tensor

from generation.denoisers.latents import latent_stage
from generation.denoisers.network import Denoiser
from generation.denoisers.source import DenoiserGenerator
from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch
from generation.pretrained.autoencoder import Autoencoder, load_autoencoder
from generation.pretrained.components import require_of_latents
from generation.pretrained.decoding import DecodingGenerator


def autoencoder_of(network: Denoiser) -> Autoencoder | None:
    """Of its latents, loaded where the network is; None for one on pixels."""
    space = latent_stage(network.config).latents
    if space is None:
        return None
    device = next(network.parameters()).device
    return load_autoencoder(space.autoencoder, space.sha256, str(device))


class LatentGenerator(DecodingGenerator, DenoiserGenerator):
    """Samples one stage."""

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:
        """float[N,C,h,w], of pixels where it learned from these; UserError as `sampled`."""
        autoencoder_of(self._network)  # it is not to be loaded beside sampling
        return self.sampled(batch, settings)

    def decoded(self, latents: Tensor) -> Tensor:
        """float[N,C,H,W], about in [-1, 1]."""
        autoencoder = autoencoder_of(self._network)
        return latents if autoencoder is None else autoencoder.decoded(latents)

    def require_effect(self, settings: SamplerConfig) -> None:
        """UserError also for latents that are to be clipped, or left noisy."""
        super().require_effect(settings)
        if latent_stage(self._network.config).latents:
            require_of_latents(settings, "the checkpoint")
