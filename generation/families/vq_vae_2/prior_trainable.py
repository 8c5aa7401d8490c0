"""Training of VQ-VAE-2's priors: generation/training/trainable.py, without torch."""

from typing import TYPE_CHECKING

from generation.families.vq_vae_2.checkpoint_files import (
    HierarchyConfig,
    autoencoder_folder,
    autoencoder_sha256,
    read_autoencoder,
)
from generation.families.vq_vae_2.recipe import BOTTOM, TOP, PriorRecipe
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts
from release.classes.class_list import load_classes
from release.errors import UserError

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

    from generation.families.vq_vae_2.course import PriorCourse
    from generation.training.memory import TrainingMemory

RECIPE = PriorRecipe


def with_start(recipe: PriorRecipe, start: str | None) -> PriorRecipe:
    """The recipe with its autoencoder's hash; UserError for one that does not fit, and a start."""
    recipe = planned(recipe, start)
    stage = recipe.stage
    folder = autoencoder_folder(stage.autoencoder)
    found, sha256 = read_autoencoder(folder), autoencoder_sha256(folder)
    for name, was, now in (
        ("codes", found.network.codes, stage.codes),
        ("resolution", found.resolution, stage.resolution),
        ("channels", found.channels, stage.channels or found.channels),
        ("sha256", sha256, stage.sha256 or sha256),
    ):
        if was != now:
            raise UserError(
                f"the autoencoder {folder} has {name} {was}, the recipe's [stage] {now}"
            )
    told = stage.model_copy(update={"sha256": sha256, "channels": found.channels})
    return recipe.model_copy(update={"stage": told})


def planned(recipe: PriorRecipe, start: str | None) -> PriorRecipe:
    """The recipe, without a look at its autoencoder."""
    if start is not None:
        raise UserError(
            f"--from {start}: the priors begin from nothing; [stage] autoencoder names what they "
            "learn the codes of"
        )
    return recipe


def sides(recipe: PriorRecipe) -> tuple[int, ...]:
    """Of the images it learns from."""
    return (recipe.stage.resolution,)


def memory(recipe: PriorRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`, of both priors; their autoencoder, not trained, is left out."""
    import torch
    from torch import nn

    from generation.training.memory import training_memory

    with torch.device("meta"):
        priors = _new_priors(recipe)

    def forward(images: int) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(images, *shape, dtype=torch.int64, device="meta")

        tall, wide = recipe.stage.resolution // TOP, recipe.stage.resolution // BOTTOM
        priors["top"](zeros(tall, tall), zeros())
        priors["bottom"](zeros(wide, wide), zeros(), zeros(tall, tall))

    return training_memory(nn.ModuleDict(priors), forward, recipe.training, processes)


def with_images(recipe: PriorRecipe, images: TrainingSet, source: str) -> PriorRecipe:
    """The recipe; UserError for images in colour where its autoencoder is grey."""
    return with_channels_of(recipe, images, source)


def start_facts(start: str | None) -> StartFacts:  # noqa: ARG001 - there is none
    """Of nothing: the recipe has the autoencoder's hash."""
    return StartFacts()


def course(
    recipe: PriorRecipe,
    start: str | None,  # noqa: ARG001 - there is none
    images: TrainingSet,
    processes: "PartialState",
) -> "PriorCourse":
    """The training of the priors on their images."""
    import torch

    from generation.families.vq_vae_2.checkpoint import load_autoencoder, priors_config
    from generation.families.vq_vae_2.course import PriorCourse
    from generation.families.vq_vae_2.objective import PriorObjective
    from generation.training.data.images import even_batches

    config, stage = recipe.training, recipe.stage
    assert stage.channels is not None
    folder = autoencoder_folder(stage.autoencoder)
    autoencoder = load_autoencoder(folder).to(processes.device)
    torch.manual_seed(config.seed)
    objective = PriorObjective(_new_priors(recipe), autoencoder)
    index = torch.arange(len(images.class_ids))
    data = images.told(index, stage.channels)
    batches = even_batches(data, config, processes, flip=config.flip, updates=2)
    about: HierarchyConfig = read_autoencoder(folder)
    return PriorCourse(
        objective, batches, priors_config(recipe.network, _prompts(recipe)), autoencoder, about
    )


def _new_priors(recipe: PriorRecipe) -> "dict[str, torch.nn.Module]":
    from generation.families.vq_vae_2.checkpoint import new_priors

    stage = recipe.stage
    return new_priors(
        recipe.network,
        codes=stage.codes,
        resolution=stage.resolution,
        classes=len(_prompts(recipe)),
    )


def _prompts(recipe: PriorRecipe) -> tuple[str, ...]:
    return tuple(c.prompt for c in load_classes(recipe.classes))
