"""A training of an autoencoder: its objective and data, what it leaves, what it shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generation.families.vq_autoencoder.objective import AUTOENCODER, AutoencoderObjective
from generation.pretrained.diffusers_weights import save_weights
from generation.training.data.images import ImageBatches
from generation.training.loop.learner import Snapshot
from generation.training.reconstructions import first_images, reconstruction_grid

MEASURED = 1024  # images whose latents say the scaling factor


@dataclass(frozen=True)
class AutoencoderCourse:
    """A stage's training."""

    objective: AutoencoderObjective
    data: ImageBatches

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """As diffusers saves a VQModel, without the discriminator.

        Its scaling_factor is 1 over the deviation of the latents of the first training images, so
        that a latent network sees unit variance.
        """
        network = self._network(snapshot)
        deviation = torch.cat(
            [network.encode(x).latents for x in first_images(self.data, MEASURED)]
        ).std()
        network.register_to_config(scaling_factor=round(1 / float(deviation), 6))
        save_weights(network, folder, torch.float32)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """Training images over what becomes of them."""
        network = self._network(snapshot)
        return reconstruction_grid(self.data, lambda x: network(x, return_dict=False)[0])

    def _network(self, snapshot: Snapshot) -> Any:
        return snapshot.trained[AUTOENCODER].eval().requires_grad_(False)
