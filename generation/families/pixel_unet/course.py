"""A training of a pixel U-Net: its objective and data, its checkpoints and sample grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.families.pixel_unet.network import PixelUNet
from generation.families.pixel_unet.objective import NETWORK, PixelUNetObjective
from generation.families.pixel_unet.recipe import PixelUNetRecipe, PixelUNetTraining
from generation.networks.timm_classifier import to_channels
from generation.training.images import ImageBatches, TrainingImages
from generation.training.learner import Learner
from generation.training.loop import require_even_batch
from generation.training.sample_grid import sample_grid
from release.classes.class_list import load_classes
from release.layout.image_sets import LabelledImages

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class PixelUNetCourse:
    """A stage's training."""

    objective: PixelUNetObjective
    data: ImageBatches

    def save(self, learner: Learner[Any], folder: Path) -> None:
        """The averaged network as float16."""
        save_checkpoint(_trained(learner), folder, torch.float16)

    def samples(self, learner: Learner[Any]) -> np.ndarray:
        """A row a prompt."""
        network = _trained(learner)
        known, side = network.prompts.prompts, network.config.resolution
        return sample_grid(PixelUNetGenerator(network), known, self.data.data, side)


def network_course(
    network: PixelUNet,
    config: PixelUNetTraining,
    data: TrainingImages,
    processes: "PartialState",
) -> PixelUNetCourse:
    """Of a network on `data`; UserError for a batch that does not divide over all processes."""
    require_even_batch(config.batch, processes.num_processes, config.accumulation)
    size = config.batch // (processes.num_processes * config.accumulation)
    batches = ImageBatches(data, size, config.seed, processes.process_index, config.flip)
    return PixelUNetCourse(PixelUNetObjective(network, config, processes.device), batches)


def training_images(
    network: PixelUNet, recipe: PixelUNetRecipe, images: Sequence[LabelledImages]
) -> TrainingImages:
    """The stage's images and, for super-resolution, their parents, as the network sees them."""
    own, *parents = (
        torch.from_numpy(to_channels(source.images, network.config.channels)) for source in images
    )
    index = network.conditions([c.prompt for c in load_classes(recipe.classes)])
    labels = torch.from_numpy(images[0].labels)
    return TrainingImages(own, parents[0] if parents else None, index[labels])


def _trained(learner: Learner[Any]) -> PixelUNet:
    network = learner.trained[NETWORK]
    assert isinstance(network, PixelUNet)
    return network
