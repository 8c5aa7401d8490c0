"""A training of a pixel U-Net: its objective and data, its checkpoints and sample grids."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from generation.diffusion.sampler_config import SamplerConfig
from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.objective import NETWORK, PixelUNetObjective
from generation.families.pixel_unet.recipe import PixelUNetRecipe, PixelUNetTraining
from generation.generator import ImageBatch, Screened
from generation.training.config import PRECISION_NAMES
from generation.training.images import ImageBatches, Images, even_batches
from generation.training.learner import Snapshot
from generation.training.training_set import TrainingSet
from release.classes.class_list import load_classes

if TYPE_CHECKING:
    from accelerate import PartialState

PER_PROMPT = 8  # samples in each row of a grid
MOST_PROMPTS = 16  # rows of a grid: an ImageNet of them would fill no screen and all memory
SAMPLER = SamplerConfig(method="dpm-solver++", steps=12)


@dataclass(frozen=True)
class PixelUNetCourse:
    """A stage's training."""

    objective: PixelUNetObjective
    data: ImageBatches

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged network as float16."""
        save_checkpoint(_trained(snapshot), folder, torch.float16)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a prompt, on the parent of its first training image.

        Of the first MOST_PROMPTS; an unconditional network has one row.
        """
        network, data = _trained(snapshot), self.data.data
        count = min(max(1, len(network.prompts.prompts) - 1), MOST_PROMPTS)
        generator = PixelUNetGenerator(network)
        made = [generator.sample(_row(network, data, i), SAMPLER) for i in range(count)]
        rows = [np.hstack(list(m.images if isinstance(m, Screened) else m)) for m in made]
        return np.vstack(rows)


def network_course(
    network: PixelUNet,
    config: PixelUNetTraining,
    data: Images,
    processes: "PartialState",
) -> PixelUNetCourse:
    """Of a network on `data`; UserError for a batch that does not divide over all processes."""
    precision = PRECISION_NAMES[config.precision]
    network.config = network.config.model_copy(update={"precision": precision})
    batches = even_batches(data, config, processes, flip=config.flip)
    return PixelUNetCourse(PixelUNetObjective(network, config), batches)


def training_images(network: PixelUNet, recipe: PixelUNetRecipe, images: TrainingSet) -> Images:
    """The stage's images and, for super-resolution, their parents, as the network sees them."""
    index = network.conditions([c.prompt for c in load_classes(recipe.classes)])
    return images.told(index, network.config.channels)


def _trained(snapshot: Snapshot) -> PixelUNet:
    network = snapshot.trained[NETWORK]
    assert isinstance(network, PixelUNet)
    return network


def _row(network: PixelUNet, data: Images, prompt: int) -> ImageBatch:
    """PER_PROMPT images of one prompt."""
    parents = None
    first = data.parent_of(prompt)
    if first is not None:
        rgb = first.expand(3, -1, -1).permute(1, 2, 0).numpy()
        parents = np.repeat(rgb[None], PER_PROMPT, axis=0)
    return ImageBatch(
        prompts=[network.prompts.prompts[prompt]] * PER_PROMPT,
        labels=[prompt] * PER_PROMPT,
        seeds=list(range(prompt * PER_PROMPT, (prompt + 1) * PER_PROMPT)),
        parents=parents,
        resolution=network.config.resolution,
    )
