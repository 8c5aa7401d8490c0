"""Images, or latents of a release, as a pipeline's network sees them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generation.pretrained.autoencoder import Autoencoder, sampled
from generation.training.data.images import DrawnImages, to_signal


@dataclass(frozen=True)
class SeenLatents:
    """autoencoder: the pipeline's, which encodes images; not needed of latents.

    The posterior of an image is sampled anew each time that it is seen.
    """

    autoencoder: Autoencoder | None

    def of(self, drawn: DrawnImages) -> DrawnImages:
        """The same with float32[N,C,h,w] in the place of its images."""
        return replace(drawn, images=self.seen(self._latents(drawn)))

    def seen(self, latents: Tensor) -> Tensor:
        """Of what the autoencoder's factors make of a sample."""
        return latents

    def _latents(self, drawn: DrawnImages) -> Tensor:
        if drawn.images.is_floating_point():
            return drawn.images
        assert self.autoencoder is not None
        moments = self.autoencoder.posterior(to_signal(drawn.images))
        files, side = self.autoencoder.files, moments.shape[-1]
        noise = drawn.rng.normal(files.channels, side, side)
        return sampled(moments, noise, files.scaling_factor, files.shift_factor)


@dataclass(frozen=True)
class PatchedLatents(SeenLatents):
    """FLUX.2's: patches of 2 x 2 as channels, each less its mean and over its deviation, [1,C,1,1],
    which its autoencoder carries."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def by(cls, autoencoder: Autoencoder, *, encodes: bool) -> "PatchedLatents":
        """With the statistics of an autoencoder, which is kept if it `encodes`."""
        norm, eps = autoencoder.network.bn, autoencoder.network.config.batch_norm_eps
        mean, variance = (s.view(1, -1, 1, 1) for s in (norm.running_mean, norm.running_var))
        return cls(autoencoder if encodes else None, mean, torch.sqrt(variance + eps))

    def seen(self, latents: Tensor) -> Tensor:
        from diffusers import Flux2KleinPipeline as Pipeline

        patches: Tensor = Pipeline._patchify_latents(latents)
        return (patches - self.mean.to(patches.device)) / self.deviation.to(patches.device)
