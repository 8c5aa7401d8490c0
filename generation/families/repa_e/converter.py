"""REPA-E's checkpoints in their authors' layout (End2End-Diffusion/REPA-E): SiT's keys, REPA's
projectors, and a batch norm, whose running statistics are those of the latents."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from generation.families.diffusion_transformer.converter import convert
from generation.families.diffusion_transformer.layout import without_projectors
from generation.networks.transformer import Transformer
from release.errors import UserError

MEAN, VARIANCE, COUNT = "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"


@dataclass(frozen=True)
class EndToEnd:
    """mean, deviation: of each channel of the latents, float32[C]."""

    network: Transformer
    mean: Tensor
    deviation: Tensor


def convert_repa_e(state: Mapping[str, Tensor], name: str, heads: int | None = None) -> EndToEnd:
    """In float32; UserError names a missing or odd key. heads: see DiT's converter."""
    rest = {key: t for key, t in state.items() if key not in (MEAN, VARIANCE, COUNT)}
    network = convert(without_projectors(rest), name, heads)
    channels = network.plan.channels
    for key in (MEAN, VARIANCE):
        if key not in state or state[key].numel() != channels:
            raise UserError(f"{name} does not fit its generator: it lacks {key} of its latents")
    mean, variance = (state[key].float().flatten() for key in (MEAN, VARIANCE))
    return EndToEnd(network, mean, variance.sqrt())
