"""An autoencoder of a latent model at work: images to the moments of their latents, and back."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.networks.timm_classifier import to_channels
from generation.pretrained.autoencoder_files import AutoencoderFiles, require_autoencoder
from generation.pretrained.components import load_component

LOG_VARIANCE = (-30.0, 20.0)  # within which the posterior's is kept, as diffusers samples it


class Autoencoder:
    """In float32 on `device`: bfloat16's steps are wider than a pixel's."""

    def __init__(self, files: AutoencoderFiles, device: str) -> None:
        import diffusers

        kind = getattr(diffusers, files.kind)
        self.files, self.device = files, device
        self.network = load_component(kind, files.folder, torch.float32).to(device)

    @property
    def channels(self) -> int:
        """Of its images."""
        return int(self.files.config.get("in_channels", 3))

    @torch.inference_mode()
    def moments(self, images: np.ndarray, *, mirrored: bool) -> np.ndarray:
        """uint8[N,H,W,3] => float32[N,K,P,h,w]: K the image and, if asked for, its mirror image; P
        the channels of mean and log variance, of a VQModel those of its latents alone."""
        pixels = torch.from_numpy(to_channels(images, self.channels)).to(self.device)
        x = pixels.float() / 127.5 - 1
        found = [self._encoded(one) for one in ([x, x.flip(3)] if mirrored else [x])]
        return torch.stack(found, dim=1).cpu().numpy()

    @torch.no_grad()
    def posterior(self, x: Tensor) -> Tensor:
        """float32[N,P,h,w], as `moments`, of float32[N,C,H,W] in [-1, 1] on the device.

        One at a time: of large images memory is the limit.
        """
        return torch.cat([self._encoded(one) for one in x.split(1)])

    def _encoded(self, x: Tensor) -> Tensor:
        if self.files.kind == "VQModel":
            return self.network.encode(x).latents  # type: ignore[no-any-return]
        mean, log_variance = self.network.encode(x).latent_dist.parameters.chunk(2, dim=1)
        return torch.cat([mean, log_variance.clamp(*LOG_VARIANCE)], dim=1)

    @torch.inference_mode()
    def decoded(self, latents: Tensor) -> Tensor:
        """float32[N,C,H,W], about in [-1, 1], from latents as networks see them, [N,c,h,w]."""
        scaled = latents.float().to(self.device) / self.files.scaling_factor
        return decoded_by(self.network, scaled + self.files.shift_factor)


def decoded_by(network: Any, latents: Tensor) -> Tensor:
    """float32[N,C,H,W], by diffusers' `network`, from latents as it makes them, float32[N,c,h,w].

    One at a time: of large images memory is the limit.
    """
    return torch.cat([network.decode(one, return_dict=False)[0] for one in latents.split(1)])


@lru_cache(maxsize=1)
def load_autoencoder(name: str, sha256: str, device: str) -> Autoencoder:
    """The one of that name and hash; UserError if it is not here, or another."""
    return Autoencoder(require_autoencoder(name, sha256), device)


def sampled(moments: Tensor, noise: Tensor, scaling_factor: float, shift_factor: float) -> Tensor:
    """A latent of each posterior, as networks see it: float32[N,C,h,w].

    moments float[N,P,h,w]: P = 2 C of mean and log variance, or P = C of points; noise, standard
    normal, float32[N,C,h,w].
    """
    moments, channels = moments.float(), noise.shape[1]
    latents = moments[:, :channels]
    if moments.shape[1] > channels:
        latents = latents + (moments[:, channels:] / 2).exp() * noise
    return (latents - shift_factor) * scaling_factor
