"""Sampling of networks that may be on latents, which are decoded then."""

from torch import Tensor

from generation.denoisers.latents import latent_stage
from generation.denoisers.source import DenoiserGenerator
from generation.diffusion.sampler_config import SamplerConfig
from generation.pretrained.autoencoder import load_autoencoder
from release.errors import UserError


class LatentGenerator(DenoiserGenerator):
    """Samples one stage."""

    def images(self, x0: Tensor) -> Tensor:
        """Decoded, where these are latents."""
        latents = latent_stage(self._network.config).latents
        if latents is None:
            return x0
        autoencoder = load_autoencoder(latents.autoencoder, latents.sha256, str(x0.device))
        return autoencoder.decoded(x0)

    def require_effect(self, settings: SamplerConfig) -> None:
        """UserError also for latents that are to be clipped."""
        super().require_effect(settings)
        if latent_stage(self._network.config).latents and settings.stop:
            raise UserError("the checkpoint decodes latents, which must be clean: leave stop out")
        if latent_stage(self._network.config).latents and settings.threshold != "none":
            raise UserError(
                "the checkpoint samples latents, which have no bounds to clip to: its sampler "
                'needs threshold = "none"'
            )
