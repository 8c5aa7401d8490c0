"""VA-VAE (Yao et al. 2025), in its authors' layout: weights, and its latents' statistics.

Both lie beside the checkpoint or in the model cache. To import this is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file, read_tensors
from release.errors import UserError
from release.files.commit import sha256_text

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "the Hub, hustvl/vavae-imagenet256-f16d32-dinov2"
WEIGHTS, STATISTICS = "vavae-imagenet256-f16d32-dinov2.pt", "latents_stats.pt"
# what its training looked at beside the autoencoder
TRAINING = ("loss.", "foundation_model.", "linear_proj.")


@dataclass(frozen=True)
class VaVaeFiles:
    """Where they are."""

    weights: Path
    statistics: Path

    @property
    def sha256(self) -> str:
        """One hash over both."""
        return sha256_text(f"{file_sha256(self.weights)} {file_sha256(self.statistics)}")


def va_vae_of(file: Path) -> VaVaeFiles:
    """That of a checkpoint; UserError says where to get what is missing."""
    return VaVaeFiles(*(_located(file, name) for name in (WEIGHTS, STATISTICS)))


def load_va_vae(files: VaVaeFiles) -> "tuple[Any, Tensor, Tensor]":
    """AutoencoderKL in float32; mean and deviation of each channel of its latents, float32[C]."""
    from generation.pretrained.compvis_autoencoder import convert_kl

    state = read_tensors(files.weights)
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(TRAINING)}
    network = convert_kl(kept, str(files.weights))
    statistics = read_tensors(files.statistics)
    channels = network.config.latent_channels
    for part in ("mean", "std"):
        if part not in statistics or statistics[part].numel() != channels:
            raise UserError(f"{files.statistics} holds no {part} of {channels} channels")
    mean, deviation = (statistics[part].float().flatten() for part in ("mean", "std"))
    return network, mean, deviation


def _located(file: Path, name: str) -> Path:
    beside = file.parent / name
    return beside if beside.is_file() else locate_file(name, SOURCE)
