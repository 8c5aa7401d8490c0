"""A training of a pixel U-Net: its objective and data, its checkpoints and sample grids."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.objective import NETWORK, PixelUNetObjective
from generation.families.pixel_unet.recipe import PixelUNetRecipe, PixelUNetTraining
from generation.training.config import PRECISION_NAMES
from generation.training.data.images import ImageBatches, Images, even_batches
from generation.training.data.training_set import TrainingSet
from generation.training.loop.learner import Snapshot
from generation.training.sample_grid import sample_grid
from release.classes.class_list import load_classes

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class PixelUNetCourse:
    """A stage's training."""

    objective: PixelUNetObjective
    data: ImageBatches

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged network as float16."""
        save_checkpoint(_trained(snapshot), folder, torch.float16)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a prompt."""
        network = _trained(snapshot)
        known, side = network.prompts.prompts, network.config.resolution
        return sample_grid(PixelUNetGenerator(network), known, self.data.data, side)


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
