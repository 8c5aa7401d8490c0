"""Guidance by a classifier of noisy images (Dhariwal & Nichol 2021, section 4)."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from generation.denoisers.checkpoint import load_checkpoint
from generation.denoisers.network import Denoiser
from generation.diffusion.sampler import Guide
from generation.diffusion.sampler_config import ClassifierGuidance
from generation.diffusion.schedule import NoiseSchedule
from generation.families.noisy_classifier.family import FAMILY
from generation.families.noisy_classifier.files import locate_classifier
from release.errors import UserError


def classifier_guide(
    guidance: ClassifierGuidance,
    schedule: NoiseSchedule,
    prompts: list[str],
    seen: tuple[int, int],
    device: torch.device,
) -> Guide:
    """s * grad log p(y | x_t), y the classes of `prompts`; t counts along `schedule`.

    seen: side and channels of the images. UserError for a classifier of other images or classes.
    """
    network = _loaded(*locate_classifier(guidance, seen[0]), str(device))
    if network.config.channels != seen[1]:
        raise UserError(
            f"the classifier {guidance.checkpoint} sees images of {network.config.channels} "
            f"channels, the checkpoint it is to guide makes {seen[1]}"
        )
    labels = network.conditions(prompts).to(device)

    def guide(x: Tensor, t: int) -> Tensor:
        log_snr = torch.full((len(x),), float(schedule.log_snr[t]), device=x.device)
        return guidance.scale * class_gradient(network, x, log_snr, labels)

    return guide


def class_gradient(network: Denoiser, x: Tensor, log_snr: Tensor, labels: Tensor) -> Tensor:
    """grad_x log p(y | x), float[N,C,H,W]; each image's own, as their logits are apart."""
    with torch.inference_mode(False), torch.enable_grad():
        noisy = x.clone().requires_grad_(True)
        log_snr, labels = log_snr.clone(), labels.clone()
        logits, _ = network(noisy, log_snr, labels)
        chosen = logits.float().log_softmax(dim=1).gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, noisy)
    return gradient


@lru_cache(maxsize=1)  # a worker holds one stage's models at a time
def _loaded(folder: Path, _sha256: str, device: str) -> Denoiser:
    """The network of these files."""
    with torch.inference_mode(False):
        return load_checkpoint(FAMILY, folder).to(device)
