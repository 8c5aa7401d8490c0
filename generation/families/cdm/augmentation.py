"""What a stage of CDM sees of its parents while it is trained (Ho et al. 2022, section 3).

Noise at low resolutions:  z_s = cos(s pi / 2) z + sin(s pi / 2) eps,  s even, told to the network
Blur at high ones:         z * Gaussian of 3 x 3 pixels, sigma even in BLUR, of half of the images
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from generation.diffusion.augmentation import augment
from generation.diffusion.random_numbers import ImageRandom
from generation.families.cdm.recipe import CDMStage

BLUR = (0.4, 0.6)
BLURRED = 0.5  # share of images


def with_level(parent: Tensor, level: Tensor | float) -> Tensor:
    """float[N,C,h,w] and its level of noise, a number an image or of all, as one channel more."""
    plane = torch.as_tensor(level, device=parent.device, dtype=parent.dtype)
    return torch.cat([parent, plane.view(-1, 1, 1, 1).expand_as(parent[:, :1])], dim=1)


def augmented(parent: Tensor, stage: CDMStage, rng: ImageRandom) -> Tensor:
    """As the network is told of it, float[N,C,h,w]; where noise is added, with its level."""
    if stage.augmentation == "noise":
        level = rng.uniform() * stage.max_augmentation
        return with_level(augment(parent, rng.normal(*parent.shape[1:]), level), level)
    if stage.augmentation == "blur":
        sigma = BLUR[0] + rng.uniform() * (BLUR[1] - BLUR[0])
        chosen = (rng.uniform() < BLURRED).view(-1, 1, 1, 1)
        return torch.where(chosen, blurred(parent, sigma), parent)
    return parent


def blurred(image: Tensor, sigma: Tensor) -> Tensor:
    """float[N,C,h,w] by a Gaussian of 3 x 3 pixels, sigma float[N]; beyond the border the image is
    mirrored."""
    side = torch.exp(-1 / (2 * sigma**2))
    kernel = torch.stack([side, torch.ones_like(side), side], dim=1)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    n, channels = image.shape[:2]
    weight = (kernel[:, :, None] * kernel[:, None]).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect").flatten(0, 1)[None]
    return F.conv2d(padded, weight.to(image), groups=n * channels).view_as(image)
