"""A training of a stage of DeepFloyd IF: objective and data, checkpoints and sample grids."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from generation.families.deepfloyd_if.network import TOKENS, IFNetwork
from generation.families.deepfloyd_if.objective import NETWORK, IFObjective, StageSchedules
from generation.families.deepfloyd_if.pipeline import enlarge, guided_denoiser
from generation.pretrained.diffusers_weights import save_weights
from generation.pretrained.finetuned import FineTuned
from generation.training.data.images import ImageBatches
from generation.training.loop.learner import Snapshot
from generation.training.sample_grids import MOST_ROWS, first_parent, row_seeds, sampled_row
from release.files.commit import write_atomically


@dataclass(frozen=True)
class IFCourse:
    """A stage's training. files: what its checkpoints have of their start, by name."""

    objective: IFObjective
    data: ImageBatches
    schedules: StageSchedules
    about: FineTuned
    files: Mapping[str, bytes]

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged U-Net as float16, as DeepFloyd publishes it, and what it came from.

        UserError, before anything is written, for weights that are not finite as float16.
        """
        save_weights(_trained(snapshot).unet, folder / "unet", torch.float16)
        for name, content in self.files.items():
            write_atomically(folder / name, content)
        self.about.write(folder)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a prompt, of the first few: samples of a first stage; of a second one the parent of
        the prompt's first training image, enlarged, and what comes of it.
        """
        network = _trained(snapshot)
        was_training = network.training
        network.eval()
        rows = [self._row(network, i) for i in range(min(network.prompts.null, MOST_ROWS))]
        network.train(was_training)
        return np.vstack(rows)

    @torch.no_grad()
    def _row(self, network: IFNetwork, prompt: int) -> np.ndarray:
        """uint8[H,W',3]."""
        weight, side = next(network.parameters()), self.about.resolution
        found = first_parent(self.data.data, prompt)
        parent = None if found is None else enlarge(found.to(weight.device), side)
        seeds = row_seeds(prompt, follows=parent is not None)
        numbers = torch.full((len(seeds),), prompt, device=weight.device)
        text = network.prompts.rows(numbers)[TOKENS].to(weight.dtype)
        return sampled_row(
            guided_denoiser(network.unet, text, 1.0, parent, 0),
            self.schedules.images,
            self.schedules.prediction,
            seeds,
            side,
            weight.device,
            parent,
        )


def _trained(snapshot: Snapshot) -> IFNetwork:
    network = snapshot.trained[NETWORK]
    assert isinstance(network, IFNetwork)
    return network
