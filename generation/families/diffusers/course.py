"""A training of a LoRA: objective and data, checkpoints and sample grids."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.diffusers.adapter import save_adapter
from generation.families.diffusers.network import LoraNetwork
from generation.families.diffusers.objective import NETWORK, LoraObjective
from generation.families.diffusers.pipeline import PipelineGenerator
from generation.families.diffusers.text import NULL_PROMPT
from generation.pretrained.finetuned import FineTuned
from generation.training.data.images import ImageBatches
from generation.training.loop.learner import Snapshot
from generation.training.sample_grid import sample_grid

ROWS = 4  # of a sample grid: at 1024 px a row takes half a minute
PREVIEW = SamplerConfig(method="native", steps=20, guidance=4.0)


@dataclass(frozen=True)
class LoraCourse:
    """component: what of the pipeline is trained. generator: samples it, in the main process."""

    objective: LoraObjective
    data: ImageBatches
    about: FineTuned
    component: str
    generator: PipelineGenerator | None

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged adapter as float32, and what it changes."""
        save_adapter(_trained(snapshot).base, self.component, folder)
        self.about.write(folder)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a prompt, of the first few, by the pipeline's own sampler."""
        network = _trained(snapshot)
        was_training = network.training
        network.eval()
        assert self.generator is not None
        self.generator.use(self.component, network.base)
        known = (*network.prompts.prompts[:-1][:ROWS], NULL_PROMPT)
        side = self.about.resolution
        grid = sample_grid(self.generator, known, self.data.data, side, PREVIEW)
        network.train(was_training)
        return grid


def _trained(snapshot: Snapshot) -> LoraNetwork:
    network = snapshot.trained[NETWORK]
    assert isinstance(network, LoraNetwork)
    return network
