"""A training of a BigGAN: what it leaves, and what it shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.biggan.generator import CONFIG, TRAINED_WEIGHTS
from generation.families.biggan.network import BigGAN, BigGANGenerator
from generation.families.biggan.normalisation import whole
from generation.families.biggan.objective import GENERATOR, BigGANObjective
from generation.networks.finite import require_finite
from generation.networks.placement import Placement
from generation.pretrained.diffusers_weights import tensor_file
from generation.training.data.images import ImageBatches
from generation.training.loop.learner import Snapshot
from generation.training.sample_grid import sample_grid
from release.files.commit import write_atomically

SHOWN = SamplerConfig(method="truncation", truncation=1.0)
FEW = 2  # batches of the statistics of what is shown
BATCH = 64  # latents of one


@dataclass(frozen=True)
class BigGANCourse:
    """A stage's training. prompts: of the classes, in label order."""

    objective: BigGANObjective
    data: ImageBatches
    prompts: tuple[str, ...]
    standing_batches: int

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged generator with its standing statistics; config.json comes last."""
        network = whole(_generator(snapshot), self.standing_batches, BATCH)
        weights = {name: t.cpu().contiguous() for name, t in network.state_dict().items()}
        require_finite(weights.items(), f"the network for {folder}")
        write_atomically(folder / TRAINED_WEIGHTS, tensor_file(weights))
        text = network.config.model_dump_json(indent=2) + "\n"
        write_atomically(folder / CONFIG, text.encode())

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a class, without truncation."""
        network = whole(_generator(snapshot), FEW, BATCH, truncations=1)
        device = str(self.data.device)
        generator = BigGANGenerator(network, Placement(device, torch.float32, compile=False))
        known = (*self.prompts, "")  # the grid leaves the last out
        return sample_grid(generator, known, self.data.data, network.config.output_dim, SHOWN)


def _generator(snapshot: Snapshot) -> BigGAN:
    network = snapshot.trained[GENERATOR]
    assert isinstance(network, BigGAN)
    return network
