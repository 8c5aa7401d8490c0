"""The trainings of VQ-VAE-2: what they leave, and what they show."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from generation.families.vq_vae_2.checkpoint import (
    Networks,
    save_autoencoder,
    save_networks,
)
from generation.families.vq_vae_2.checkpoint_files import HierarchyConfig, PriorConfig
from generation.families.vq_vae_2.hierarchy import Hierarchy
from generation.families.vq_vae_2.objective import AUTOENCODER, HierarchyObjective, PriorObjective
from generation.families.vq_vae_2.sampling import SETTINGS, CodeGenerator
from generation.training.data.images import ImageBatches
from generation.training.loop.learner import Snapshot
from generation.training.reconstructions import reconstruction_grid
from generation.training.sample_grid import sample_grid


@dataclass(frozen=True)
class HierarchyCourse:
    """Of the autoencoder."""

    objective: HierarchyObjective
    data: ImageBatches
    config: HierarchyConfig

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """Network and codebooks."""
        save_autoencoder(_autoencoder(snapshot), self.config, folder)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """Training images over what becomes of them."""
        network = _autoencoder(snapshot).eval()
        return reconstruction_grid(self.data, lambda x: network(x)[0])


@dataclass(frozen=True)
class PriorCourse:
    """Of the priors. autoencoder: its network, on the device of the training."""

    objective: PriorObjective
    data: ImageBatches
    config: PriorConfig
    autoencoder: Hierarchy
    about: HierarchyConfig

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged priors, and a copy of the autoencoder."""
        save_networks(self._networks(snapshot), self.about, folder)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a class."""
        generator = CodeGenerator(self._networks(snapshot))
        known = (*self.config.classes, "")  # the grid leaves the last out
        return sample_grid(generator, known, self.data.data, self.about.resolution, SETTINGS)

    def _networks(self, snapshot: Snapshot) -> Networks:
        priors = nn.ModuleDict({n: m.eval() for n, m in snapshot.trained.items()})
        return Networks(self.config, self.about.resolution, self.autoencoder, priors)


@torch.no_grad()
def _autoencoder(snapshot: Snapshot) -> Hierarchy:
    network = snapshot.trained[AUTOENCODER]
    assert isinstance(network, Hierarchy)
    return network
