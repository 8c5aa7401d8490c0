"""Tiny untrained networks of improved MeanFlow, in their authors' layout."""

from pathlib import Path

import torch
from torch import Tensor

from generation.families.mean_flow.converter import LINEAR, PREFIX, authors_state
from generation.families.mean_flow.network import MeanFlowNetwork, MeanFlowPlan
from tests.models.tiny_autoencoders import save_autoencoder
from tests.models.tiny_models import randomize

TOKENS = (3, 2, 1, 1, 2)


def tiny_mean_flow(side: int = 4, classes: int = 3) -> MeanFlowNetwork:
    """Three blocks, two heads of eight channels; no weight is zero."""
    torch.manual_seed(0)
    network = MeanFlowNetwork(MeanFlowPlan(side, 4, classes + 1, 2, 16, 3, 2, 24, TOKENS))
    randomize(network, 0.3)
    return network.eval().requires_grad_(False)


def mean_flow_state(network: MeanFlowNetwork, own: int = 1) -> dict[str, Tensor]:
    """As published: the second head's last layer is there, its blocks are not."""
    last = f"{PREFIX}v_final_layer"
    state = authors_state(network, own)
    outputs, width = network.out.weight.shape
    return state | {
        f"{last}.norm.weight": torch.ones(width),
        f"{last}.linear{LINEAR}.weight": torch.zeros(outputs, width),
        f"{last}.linear{LINEAR}.bias": torch.zeros(outputs),
    }


def save_mean_flow(file: Path, classes: int = 3, blocks: int = 2) -> Path:
    """On latents of the published side; a latent stands for 2^(blocks - 1) pixels a side."""
    torch.save(mean_flow_state(tiny_mean_flow(32, classes)), file)
    save_autoencoder(file.parent / "sd-vae-ft-mse", blocks=blocks)
    return file
