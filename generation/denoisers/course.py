"""A training of a network: its objective and data, its checkpoints and sample grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from generation.denoisers.checkpoint import save_checkpoint
from generation.denoisers.family import Family
from generation.denoisers.learning import NETWORK, DenoiserObjective
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserRecipe
from generation.denoisers.source import DenoiserGenerator
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
class DenoiserCourse:
    """A stage's training."""

    family: Family
    objective: DenoiserObjective
    data: ImageBatches

    def save(self, learner: Learner[Any], folder: Path) -> None:
        """The averaged network."""
        save_checkpoint(self.family, _trained(learner), folder)

    def samples(self, learner: Learner[Any]) -> np.ndarray:
        """A row a class."""
        network = _trained(learner)
        config, made = network.config, DenoiserGenerator(network)
        return sample_grid(made, config.classes, self.data.data, config.stage.resolution)


def denoiser_course(
    family: Family,
    network: Denoiser,
    recipe: DenoiserRecipe,
    data: TrainingImages,
    processes: "PartialState",
) -> DenoiserCourse:
    """Of a network on `data`; UserError for a batch that does not divide over all processes."""
    config = recipe.training
    require_even_batch(config.batch, processes.num_processes, config.accumulation)
    size = config.batch // (processes.num_processes * config.accumulation)
    batches = ImageBatches(data, size, config.seed, processes.process_index, config.flip)
    loss = family.loss(recipe)
    objective = DenoiserObjective(network, recipe, loss, processes.device)
    return DenoiserCourse(family, objective, batches)


def training_images(
    network: Denoiser, recipe: DenoiserRecipe, images: Sequence[LabelledImages]
) -> TrainingImages:
    """The stage's images and, for super-resolution, their parents, as the network sees them."""
    own, *parents = (
        torch.from_numpy(to_channels(source.images, network.config.channels)) for source in images
    )
    index = network.conditions([c.prompt for c in load_classes(recipe.classes)])
    labels = torch.from_numpy(images[0].labels)
    return TrainingImages(own, parents[0] if parents else None, index[labels])


def _trained(learner: Learner[Any]) -> Denoiser:
    network = learner.trained[NETWORK]
    assert isinstance(network, Denoiser)
    return network
