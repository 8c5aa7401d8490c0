"""Training of VQ-VAE-2's autoencoder: generation/training/trainable.py, without torch."""

from typing import TYPE_CHECKING

from generation.families.vq_vae_2.checkpoint_files import (
    HierarchyConfig,
    autoencoder_folder,
    autoencoder_sha256,
    read_autoencoder,
)
from generation.families.vq_vae_2.recipe import HierarchyRecipe
from generation.pretrained.training_data import saw_tuning
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.vq_vae_2.course import HierarchyCourse
    from generation.training.memory import TrainingMemory

RECIPE = HierarchyRecipe
COLOUR = 3  # channels of a stage whose data has not been seen yet


def with_start(recipe: HierarchyRecipe, start: str | None) -> HierarchyRecipe:
    """The recipe; UserError if its start is another network."""
    if start is not None:
        found = read_autoencoder(autoencoder_folder(start))
        channels = recipe.stage.channels or found.channels
        wanted = HierarchyConfig(recipe.network, recipe.stage.resolution, channels)
        if found != wanted:
            raise UserError(f"--from {start} is {found}, the recipe {wanted}: make them the same")
    return recipe


def sides(recipe: HierarchyRecipe) -> tuple[int, ...]:
    """Of the images it learns from."""
    return (recipe.stage.resolution,)


def memory(recipe: HierarchyRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`."""
    import torch

    from generation.families.vq_vae_2.hierarchy import Hierarchy
    from generation.training.memory import training_memory

    channels, side = recipe.stage.channels or COLOUR, recipe.stage.resolution
    with torch.device("meta"):
        network = Hierarchy(recipe.network, channels).eval()

    def forward(images: int) -> None:
        network(torch.zeros(images, channels, side, side, device="meta"))

    return training_memory(network, forward, recipe.training, processes)


def with_images(recipe: HierarchyRecipe, images: TrainingSet, source: str) -> HierarchyRecipe:
    """The recipe with the images' channels where it names none."""
    return with_channels_of(recipe, images, source)


def start_facts(start: str | None) -> StartFacts:
    """What a record says of `start`."""
    if start is None:
        return StartFacts()
    folder = autoencoder_folder(start)
    return StartFacts(autoencoder_sha256(folder), saw_tuning(folder))


def course(
    recipe: HierarchyRecipe, start: str | None, images: TrainingSet, processes: "PartialState"
) -> "HierarchyCourse":
    """The training of an autoencoder on its images."""
    import torch

    from generation.families.vq_vae_2.checkpoint import load_autoencoder
    from generation.families.vq_vae_2.course import HierarchyCourse
    from generation.families.vq_vae_2.hierarchy import Hierarchy
    from generation.families.vq_vae_2.objective import HierarchyObjective
    from generation.training.data.images import even_batches

    config, channels = recipe.training, recipe.stage.channels
    assert channels is not None
    torch.manual_seed(config.seed)
    network = Hierarchy(recipe.network, channels, config.decay)
    if start is not None:
        network.load_state_dict(load_autoencoder(autoencoder_folder(start)).state_dict())
    told = torch.zeros(len(images.class_ids), dtype=torch.int64)  # it looks at no class
    batches = even_batches(images.told(told, channels), config, processes, flip=config.flip)
    about = HierarchyConfig(recipe.network, recipe.stage.resolution, channels)
    return HierarchyCourse(HierarchyObjective(network, config.commitment), batches, about)
