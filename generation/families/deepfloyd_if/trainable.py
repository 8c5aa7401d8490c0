"""Training of a stage of DeepFloyd IF: the interface of generation/training/trainable.py."""

from typing import TYPE_CHECKING

from generation.families.deepfloyd_if.generator import NAME
from generation.families.deepfloyd_if.recipe import DeepFloydIFRecipe
from generation.families.deepfloyd_if.starting_point import (
    base_of,
    describing_files,
    stage_schedules,
    start_facts,
    start_folder,
    starting_network,
    with_network_of,
    with_planned_network,
)
from generation.pretrained.finetuned import FineTuned
from generation.training.config import PRECISION_NAMES
from generation.training.data.training_set import TrainingSet
from release.classes.class_list import load_classes

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.deepfloyd_if.course import IFCourse
    from generation.training.memory import TrainingMemory

__all__ = [
    "RECIPE",
    "course",
    "memory",
    "planned",
    "sides",
    "start_facts",
    "with_images",
    "with_start",
]

RECIPE = DeepFloydIFRecipe
with_start = with_network_of
planned = with_planned_network


def sides(recipe: DeepFloydIFRecipe) -> tuple[int, ...]:
    """The stage's own; of a second stage its parent's, too."""
    low = recipe.stage.low_resolution
    return (recipe.stage.resolution, *([] if low is None else [low]))


def memory(recipe: DeepFloydIFRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`; UserError for a start whose config makes no network."""
    from generation.families.deepfloyd_if.memory import planned_memory

    return planned_memory(recipe, processes)


def with_images(recipe: DeepFloydIFRecipe, _images: TrainingSet, _source: str) -> DeepFloydIFRecipe:
    """The recipe as it is: IF sees every image in colour."""
    return recipe


def course(
    recipe: DeepFloydIFRecipe,
    start: str | None,
    images: TrainingSet,
    processes: "PartialState",
) -> "IFCourse":
    """The training of the start's U-Net; the classes' prompts are embedded first, once."""
    from generation.families.deepfloyd_if.course import IFCourse
    from generation.families.deepfloyd_if.objective import IFObjective
    from generation.training.data.images import even_batches

    config, folder = recipe.training, start_folder(start)
    precision = PRECISION_NAMES[config.precision]
    texts = tuple(c.prompt for c in load_classes(recipe.classes))
    with processes.main_process_first():  # the others find the embeddings it left
        network = starting_network(folder, texts, precision, processes.device.type)
    conditions = network.prompts.numbers(texts)
    data = images.told(conditions, 3)
    schedules = stage_schedules(folder)
    about = FineTuned(
        generator=NAME,
        resolution=recipe.stage.resolution,
        precision=precision,
        base=base_of(start),
    )
    return IFCourse(
        IFObjective(network, schedules, config),
        even_batches(data, config, processes, flip=config.flip),
        schedules,
        about,
        describing_files(folder),
    )
