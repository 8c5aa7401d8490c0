"""VQ-VAE-2's networks to and from their checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from generation.families.vq_vae_2.checkpoint_files import (
    AUTOENCODER_CONFIG,
    AUTOENCODER_WEIGHTS,
    CONFIG_FILE,
    GENERATOR,
    WEIGHTS_FILE,
    HierarchyConfig,
    PriorConfig,
    read_autoencoder,
    read_priors,
)
from generation.families.vq_vae_2.hierarchy import Hierarchy
from generation.families.vq_vae_2.prior import Prior
from generation.families.vq_vae_2.recipe import BOTTOM, TOP, PriorShapes
from generation.networks.finite import require_finite
from release.errors import UserError
from release.files.commit import write_atomically

MISFIT = (RuntimeError, ValueError, LookupError, TypeError)  # of weights and a network


@dataclass(frozen=True)
class Networks:
    """All that makes images. priors: by "top" and "bottom"."""

    config: PriorConfig
    resolution: int
    autoencoder: Hierarchy
    priors: nn.ModuleDict


def new_priors(
    shapes: PriorShapes, *, codes: int, resolution: int, classes: int
) -> dict[str, nn.Module]:
    """Untrained, by "top" and "bottom"."""
    top = Prior(shapes.top, codes=codes, side=resolution // TOP, classes=classes, enlarges=False)
    side = resolution // BOTTOM
    bottom = Prior(shapes.bottom, codes=codes, side=side, classes=classes, enlarges=True)
    return {"top": top, "bottom": bottom}


def save_autoencoder(network: Hierarchy, config: HierarchyConfig, folder: Path) -> None:
    """autoencoder.json comes last; equal networks make equal bytes."""
    _save(network, folder / AUTOENCODER_WEIGHTS)
    _write(folder / AUTOENCODER_CONFIG, TypeAdapter(HierarchyConfig).dump_python(config))


def load_autoencoder(folder: Path) -> Hierarchy:
    """In evaluation mode; UserError, one line, for damaged files."""
    config = read_autoencoder(folder)
    with torch.device("meta"):
        network = Hierarchy(config.network, config.channels)
    _load(network, folder / AUTOENCODER_WEIGHTS)
    return network


def save_networks(networks: Networks, autoencoder: HierarchyConfig, folder: Path) -> None:
    """network.json comes last: a folder without it is no checkpoint."""
    save_autoencoder(networks.autoencoder, autoencoder, folder)
    _save(networks.priors, folder / WEIGHTS_FILE)
    _write(folder / CONFIG_FILE, TypeAdapter(PriorConfig).dump_python(networks.config))


def load_networks(folder: Path) -> Networks:
    """In evaluation mode; UserError, one line, for damaged files."""
    config, autoencoder = read_priors(folder), read_autoencoder(folder)
    with torch.device("meta"):
        priors = nn.ModuleDict(
            new_priors(
                config.network,
                codes=autoencoder.network.codes,
                resolution=autoencoder.resolution,
                classes=len(config.classes),
            )
        )
    _load(priors, folder / WEIGHTS_FILE)
    return Networks(config, autoencoder.resolution, load_autoencoder(folder), priors)


def priors_config(shapes: PriorShapes, prompts: tuple[str, ...]) -> PriorConfig:
    """Of these shapes and classes."""
    return PriorConfig(GENERATOR, shapes, prompts)


def _save(network: nn.Module, file: Path) -> None:
    weights = {name: t.contiguous() for name, t in sorted(network.state_dict().items())}
    require_finite(weights.items(), f"the network for {file}")
    write_atomically(file, save(weights))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    write_atomically(file, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _load(network: nn.Module, file: Path) -> None:
    try:
        network.load_state_dict(load_file(file), assign=True)
    except (*MISFIT, OSError, SafetensorError) as error:
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise UserError(f"{file.parent} is not a whole checkpoint: {reason}") from None
    require_finite(network.state_dict().items(), f"checkpoint {file.parent}")
    network.eval().requires_grad_(False)
