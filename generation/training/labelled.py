"""Labelled images as the data of a training in colour."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generation.networks.timm_classifier import to_channels
from generation.training.config import TrainingConfig
from generation.training.images import ImageBatches, TrainingImages
from generation.training.loop import require_even_batch
from release.layout.image_sets import LabelledImages

if TYPE_CHECKING:
    from accelerate import PartialState


def coloured_images(images: Sequence[LabelledImages], conditions: Tensor) -> TrainingImages:
    """A stage's own images and, for super-resolution, their parents.

    conditions int64[K]: what the network is told of an image of each label.
    """
    own, *parents = (torch.from_numpy(to_channels(source.images, 3)) for source in images)
    labels = torch.from_numpy(images[0].labels)
    return TrainingImages(own, parents[0] if parents else None, conditions[labels])


def even_batches(
    data: TrainingImages, config: TrainingConfig, processes: "PartialState", *, flip: bool
) -> ImageBatches:
    """This process's; UserError for a batch that does not divide over all processes and parts."""
    require_even_batch(config.batch, processes.num_processes, config.accumulation)
    size = config.batch // (processes.num_processes * config.accumulation)
    return ImageBatches(data, size, config.seed, processes.process_index, flip)
