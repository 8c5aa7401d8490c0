"""Training of a BigGAN: the interface of generation/training/trainable.py, without torch."""

from typing import TYPE_CHECKING

from generation.families.biggan.recipe import BigGANRecipe
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts
from release.classes.class_list import load_classes
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.biggan.course import BigGANCourse
    from generation.training.memory import TrainingMemory

RECIPE = BigGANRecipe
COLOUR = 3


def with_start(recipe: BigGANRecipe, start: str | None) -> BigGANRecipe:
    """The recipe; UserError for a start: a generator without its discriminator is none."""
    if start is not None:
        raise UserError(
            f"--from {start}: a BigGAN begins from nothing, as no checkpoint has its discriminator"
        )
    return recipe


def sides(recipe: BigGANRecipe) -> tuple[int, ...]:
    """Of the images it learns from."""
    return (recipe.stage.resolution,)


def memory(recipe: BigGANRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`, of both networks; UserError if they cannot be."""
    import torch
    from torch import nn

    from generation.denoisers.start import REFUSALS, bad_network
    from generation.families.biggan.discriminator import Discriminator
    from generation.families.biggan.network import BigGAN
    from generation.families.biggan.objective import config_of
    from generation.training.memory import training_memory

    classes = len(load_classes(recipe.classes))

    def forward(images: int) -> None:
        labels = torch.zeros(images, dtype=torch.int64, device="meta")
        z = torch.zeros(images, recipe.network.z_dim, device="meta")
        discriminator(generator(z, labels, 1.0), labels)

    try:
        with torch.device("meta"):  # without spectral norm, whose start looks at the weights
            generator = BigGAN(config_of(recipe, classes))
            discriminator = Discriminator(recipe.network, classes)
        both = nn.ModuleList([generator, discriminator])
        return training_memory(both, forward, recipe.training, processes)
    except REFUSALS as error:
        raise bad_network(recipe.name, error) from None


def with_images(recipe: BigGANRecipe, images: TrainingSet, source: str) -> BigGANRecipe:  # noqa: ARG001 - of the interface
    """The recipe as it is: grey images are learned in colour."""
    return recipe


def start_facts(start: str | None) -> StartFacts:  # noqa: ARG001 - there is none
    """Of nothing."""
    return StartFacts()


def course(
    recipe: BigGANRecipe,
    start: str | None,  # noqa: ARG001 - there is none
    images: TrainingSet,
    processes: "PartialState",
) -> "BigGANCourse":
    """The training on the images."""
    import torch

    from generation.families.biggan.course import BigGANCourse
    from generation.families.biggan.objective import BigGANObjective
    from generation.training.data.images import even_batches

    config = recipe.training
    prompts = tuple(c.prompt for c in load_classes(recipe.classes))
    torch.manual_seed(config.seed)
    objective = BigGANObjective(recipe, len(prompts))
    data = images.told(torch.arange(len(prompts)), COLOUR)
    batches = even_batches(
        data, config, processes, flip=config.flip, updates=len(objective.updates)
    )
    return BigGANCourse(objective, batches, prompts, config.standing_batches)
