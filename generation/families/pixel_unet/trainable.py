"""Training of a pixel U-Net: the interface of generation/training/trainable.py."""

from typing import TYPE_CHECKING

from generation.families.pixel_unet.recipe import PixelUNetRecipe
from generation.families.pixel_unet.starting_point import (
    prompts_of,
    start_facts,
    starting_network,
    with_network_of,
)
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.pixel_unet.course import PixelUNetCourse
    from generation.training.memory import TrainingMemory

__all__ = ["RECIPE", "course", "memory", "sides", "start_facts", "with_images", "with_start"]

RECIPE = PixelUNetRecipe


def with_start(recipe: PixelUNetRecipe, start: str | None) -> PixelUNetRecipe:
    """The recipe with the [network] of its start where it has none of its own."""
    return with_network_of(recipe, start)


def sides(recipe: PixelUNetRecipe) -> tuple[int, ...]:
    """The stage's own; of a super-resolution stage its parent's, too."""
    low = recipe.stage.low_resolution
    return (recipe.stage.resolution, *([] if low is None else [low]))


def memory(recipe: PixelUNetRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`; UserError for a [network] that cannot be."""
    from generation.families.pixel_unet.memory import planned_memory

    return planned_memory(recipe, prompts_of(recipe), processes)


def with_images(recipe: PixelUNetRecipe, images: TrainingSet, source: str) -> PixelUNetRecipe:
    """The recipe with the images' channels where it names none."""
    return with_channels_of(recipe, images, source)


def course(
    recipe: PixelUNetRecipe,
    start: str | None,
    images: TrainingSet,
    processes: "PartialState",
) -> "PixelUNetCourse":
    """The training of the stage's network, on its images and, for super-resolution, their parents.

    UserError if the start is of another stage or network.
    """
    from generation.families.pixel_unet.course import network_course, training_images

    network = starting_network(recipe, start)
    data = training_images(network, recipe, images)
    return network_course(network, recipe.training, data, processes)
