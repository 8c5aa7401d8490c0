"""A training of a classifier of noisy images, and its pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generation.denoisers.course import DenoiserCourse, trained_network
from generation.diffusion.noise import image_noise
from generation.diffusion.schedule import NoiseSchedule
from generation.networks.pixels import to_rgb
from generation.training.data.images import to_signal
from generation.training.loop.learner import Snapshot

SHOWN = 16  # training images, a row each
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)  # of the steps: how noisy each column is


@dataclass(frozen=True)
class ClassifierCourse(DenoiserCourse):
    """A training of a classifier."""

    @torch.no_grad()
    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row an image of the training, ever noisier; black where it is taken for another
        class."""
        network = trained_network(snapshot)
        schedule = NoiseSchedule(network.config.stage.schedule)
        rows = np.arange(min(SHOWN, len(self.data.data)))
        read = next(self.data.data.read(iter([rows]), self.data.device))
        images, labels = to_signal(read[0]), read[1]
        drawn = next(image_noise(rows.tolist(), tuple(images.shape[1:])))
        noise = torch.from_numpy(drawn).to(images.device)
        columns = []
        for share in SHARES:
            t = round(share * (schedule.num_steps - 1))
            abar = float(schedule.alphas_cumprod[t])
            x = abar**0.5 * images + (1 - abar) ** 0.5 * noise
            log_snr = torch.full((len(x),), float(schedule.log_snr[t]), device=x.device)
            logits, _ = network(x, log_snr, labels)
            right = (logits.argmax(dim=1) == labels).view(-1, 1, 1, 1)
            columns.append(_shown(torch.where(right, x.clamp(-1, 1), -1.0)))
        return np.concatenate(columns, axis=1)


def _shown(images: Tensor) -> np.ndarray:
    """uint8[N * H,W,3]: one under the other."""
    found = to_rgb(images.float().cpu().numpy())
    assert isinstance(found, np.ndarray)
    return np.vstack(list(found))
