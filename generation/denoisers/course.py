"""A training of a network: its objective and data, its checkpoints and sample grids."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from generation.denoisers.checkpoint import save_checkpoint
from generation.denoisers.family import Family
from generation.denoisers.learning import NETWORK, DenoiserObjective
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserRecipe
from generation.training.data.images import ImageBatches, Images, even_batches
from generation.training.data.training_set import TrainingSet
from generation.training.loop.learner import Snapshot
from generation.training.sample_grid import sample_grid
from release.classes.class_list import load_classes

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class DenoiserCourse:
    """A stage's training."""

    family: Family
    objective: DenoiserObjective
    data: ImageBatches

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """The averaged network."""
        save_checkpoint(self.family, trained_network(snapshot), folder)

    def samples(self, snapshot: Snapshot) -> np.ndarray:
        """A row a class."""
        network = trained_network(snapshot)
        config, made = network.config, self.family.sampler(network)
        return sample_grid(
            made, config.classes, self.data.data, config.stage.resolution, self.family.preview
        )


def denoiser_course(
    family: Family,
    network: Denoiser,
    recipe: DenoiserRecipe,
    data: Images,
    processes: "PartialState",
) -> DenoiserCourse:
    """Of a network on `data`; UserError for a batch that does not divide over all processes."""
    config = recipe.training
    batches = even_batches(data, config, processes, flip=config.flip)
    objective = DenoiserObjective(network, recipe, family.loss(recipe))
    return DenoiserCourse(family, objective, batches)


def training_images(network: Denoiser, recipe: DenoiserRecipe, images: TrainingSet) -> Images:
    """The stage's images and, for super-resolution, their parents, as the network sees them."""
    index = network.conditions([c.prompt for c in load_classes(recipe.classes)])
    return images.told(index, network.config.channels)


def trained_network(snapshot: Snapshot) -> Denoiser:
    """Its average."""
    network = snapshot.trained[NETWORK]
    assert isinstance(network, Denoiser)
    return network
