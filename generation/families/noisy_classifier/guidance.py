"""Guidance by a classifier of noisy images: to a class (Dhariwal & Nichol 2021, section 4), or to
images that it is unsure of (after Askari-Hemmat et al. 2025)."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from generation.denoisers.checkpoint import load_checkpoint
from generation.denoisers.network import Denoiser
from generation.diffusion.sampler import Guide
from generation.diffusion.sampler_config import ClassifierGuidance
from generation.diffusion.schedule import NoiseSchedule
from generation.families.noisy_classifier.family import FAMILY
from generation.families.noisy_classifier.files import locate_classifier, require_levels
from release.errors import UserError


def classifier_guide(
    guidance: ClassifierGuidance,
    schedule: NoiseSchedule,
    prompts: Sequence[str],
    seen: tuple[int, int],
    device: torch.device,
) -> Guide:
    """s times the gradient of log p(y | x_t), y the classes of `prompts`, or of the entropy of
    p(. | x_t); t counts along `schedule`.

    seen: side and channels of the images. UserError for a classifier of other images, classes or
    noise levels.
    """
    folder, sha256 = locate_classifier(guidance, seen[0])
    network = _loaded(folder, sha256, str(device))
    if network.config.channels != seen[1]:
        raise UserError(
            f"the classifier {guidance.checkpoint} sees images of {network.config.channels} "
            f"channels, the checkpoint it is to guide makes {seen[1]}"
        )
    require_levels(guidance, folder, schedule.config)
    gradient = entropy_gradient
    if guidance.towards == "class":
        labels = network.conditions(list(prompts)).to(device)
        gradient = partial(class_gradient, labels=labels)

    def guide(x: Tensor, t: int) -> Tensor:
        log_snr = torch.full((len(x),), float(schedule.log_snr[t]), device=x.device)
        return guidance.scale * gradient(network, x, log_snr)

    return guide


def class_gradient(network: Denoiser, x: Tensor, log_snr: Tensor, labels: Tensor) -> Tensor:
    """grad_x log p(y | x), float[N,C,H,W]; each image's own, as their logits are apart."""

    def chosen(log_p: Tensor) -> Tensor:
        return log_p.gather(1, labels.clone()[:, None])

    return _gradient(network, x, log_snr, chosen)


def entropy_gradient(network: Denoiser, x: Tensor, log_snr: Tensor) -> Tensor:
    """grad_x H(p(. | x)), H = - sum over classes of p log p, in nats; float[N,C,H,W].

    Askari-Hemmat et al. 2025 (arXiv 2502.15588) steer by the entropy of the classifier that is to
    learn from the images, on the one-step estimate of x0. Here the classifier is one of noisy
    images, asked about x_t itself: no gradient goes through the network that samples.
    """

    def entropy(log_p: Tensor) -> Tensor:
        return -(log_p.exp() * log_p).sum(dim=1)

    return _gradient(network, x, log_snr, entropy)


def _gradient(
    network: Denoiser, x: Tensor, log_snr: Tensor, wanted: Callable[[Tensor], Tensor]
) -> Tensor:
    """Of what is wanted of the log-probabilities, float[N,K], summed over the images."""
    with torch.inference_mode(False), torch.enable_grad():
        noisy = x.clone().requires_grad_(True)
        untold = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        logits, _ = network(noisy, log_snr.clone(), untold)
        (gradient,) = torch.autograd.grad(wanted(logits.float().log_softmax(dim=1)).sum(), noisy)
    return gradient


@lru_cache(maxsize=1)  # a worker holds one stage's models at a time
def _loaded(folder: Path, _sha256: str, device: str) -> Denoiser:
    """The network of these files."""
    with torch.inference_mode(False):
        return load_checkpoint(FAMILY, folder).to(device)
