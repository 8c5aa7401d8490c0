"""A training of one of OpenAI's U-Nets: objective and data, checkpoints and sample grids."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from generation.diffusion.schedule import NoiseSchedule
from generation.families.adm.converter import openai_state
from generation.families.adm.generators import WEIGHTS
from generation.families.adm.networks import Network
from generation.families.adm.objective import NETWORK, LabelledUNet, OpenAIObjective
from generation.families.adm.sampling import enlarge, labelled_denoiser
from generation.families.adm.shapes import Shape
from generation.networks.finite import require_finite
from generation.pretrained.diffusers_weights import tensor_file
from generation.pretrained.finetuned import FineTuned
from generation.training.data.images import ImageBatches
from generation.training.loop.learner import Snapshot
from generation.training.sample_grids import MOST_ROWS, first_parent, row_seeds, sampled_row
from release.files.commit import write_atomically


@dataclass(frozen=True)
class OpenAICourse:
    """A stage's training. network: what its tensors do not tell; shape: what they do."""

    objective: OpenAIObjective
    data: ImageBatches
    network: Network
    shape: Shape
    about: FineTuned

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged network as its authors lay one out, in float32, and what it came from.

        UserError, before anything is written, for weights that are not finite.
        """
        state = openai_state(_trained(snapshot).unet, self.shape, self.network.heads)
        weights = {name: w.detach().float().cpu().contiguous() for name, w in state.items()}
        require_finite(weights.items(), f"the network for {folder}")
        write_atomically(folder / WEIGHTS, tensor_file(weights))
        self.about.write(folder)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a class, of the first few: samples, or the parent of the class's first training
        image, enlarged, and what comes of it."""
        network = _trained(snapshot)
        was_training = network.training
        network.eval()
        rows = [self._row(network, i) for i in range(min(self.shape.classes or 1, MOST_ROWS))]
        network.train(was_training)
        return np.vstack(rows)

    @torch.no_grad()
    def _row(self, network: LabelledUNet, label: int) -> np.ndarray:
        """uint8[H,W',3]."""
        weight, side = next(network.parameters()), self.about.resolution
        found = first_parent(self.data.data, label)
        parent = None if found is None else enlarge(found.to(weight.device), side)
        seeds = row_seeds(label, follows=parent is not None)
        labels = torch.full((len(seeds),), label, device=weight.device)
        return sampled_row(
            labelled_denoiser(network.unet, labels, parent, weight.dtype),
            NoiseSchedule(self.network.schedule),
            "epsilon",
            seeds,
            side,
            weight.device,
            parent,
        )


def _trained(snapshot: Snapshot) -> LabelledUNet:
    network = snapshot.trained[NETWORK]
    assert isinstance(network, LabelledUNet)
    return network
