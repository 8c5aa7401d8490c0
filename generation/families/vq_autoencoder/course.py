"""A training of an autoencoder: its objective and data, what it leaves, what it shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.families.vq_autoencoder.objective import AUTOENCODER, AutoencoderObjective
from generation.networks.pixels import to_rgb
from generation.pretrained.diffusers_weights import save_weights
from generation.training.data.images import ImageBatches, to_signal
from generation.training.loop.learner import Snapshot

MEASURED = 1024  # images whose latents say the scaling factor
AT_ONCE = 64
SHOWN = 16  # images of a grid, each over what became of it
ROWS = 2


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
        deviation = torch.cat([network.encode(x).latents for x in self._images(MEASURED)]).std()
        network.register_to_config(scaling_factor=round(1 / float(deviation), 6))
        save_weights(network, folder, torch.float32)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """The first training images, each row of them over what the autoencoder makes of it."""
        network = self._network(snapshot)
        x = torch.cat(list(self._images(SHOWN)))
        made = torch.cat([network(one, return_dict=False)[0] for one in x.split(AT_ONCE)])
        rows = [part for pair in zip(x.chunk(ROWS), made.chunk(ROWS), strict=True) for part in pair]
        return np.vstack([np.hstack(list(_shown(row))) for row in rows])

    def _network(self, snapshot: Snapshot) -> Any:
        return snapshot.trained[AUTOENCODER].eval().requires_grad_(False)

    def _images(self, count: int) -> "list[Tensor]":
        """The first so many, in parts; float[n,C,H,W] on the device of the training."""
        rows = np.arange(min(count, len(self.data.data)))
        parts = (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
        return [to_signal(read[0]) for read in self.data.data.read(parts, self.data.device)]


def _shown(images: Tensor) -> np.ndarray:
    found = to_rgb(images.float().clamp(-1, 1).cpu().numpy())
    return found if isinstance(found, np.ndarray) else found.images
