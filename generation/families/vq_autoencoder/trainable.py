"""Training of the autoencoder: the interface of generation/training/trainable.py.

It makes no images from nothing, so no stage of a build names it; `release encode` does. To import
it is to import no torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.families.vq_autoencoder.recipe import AutoencoderRecipe
from generation.pretrained.autoencoder_files import locate_autoencoder
from generation.pretrained.training_data import saw_tuning
from generation.training.data.channels import with_channels_of
from generation.training.data.training_set import TrainingSet
from generation.training.trainable import StartFacts
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.vq_autoencoder.course import AutoencoderCourse
    from generation.training.memory import TrainingMemory

RECIPE = AutoencoderRecipe
COLOUR = 3  # channels of a stage whose data has not been seen yet


def with_start(recipe: AutoencoderRecipe, start: str | None) -> AutoencoderRecipe:
    """The recipe; UserError if its start is another network."""
    if start is not None:
        _require_same(recipe, start)
    return recipe


def sides(recipe: AutoencoderRecipe) -> tuple[int, ...]:
    """Of the images it learns from."""
    return (recipe.stage.resolution,)


def memory(recipe: AutoencoderRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`, of autoencoder and discriminator; UserError if they cannot be."""
    import torch
    from torch import nn

    from generation.denoisers.start import REFUSALS, bad_network
    from generation.families.vq_autoencoder.objective import new_objective
    from generation.training.memory import training_memory

    channels, side = recipe.stage.channels or COLOUR, recipe.stage.resolution

    def forward(images: int) -> None:
        x = torch.zeros(images, channels, side, side, device="meta")
        for network in networks.values():
            network(x)

    try:
        with torch.device("meta"):
            networks = new_objective(recipe, channels).modules
        return training_memory(nn.ModuleDict(networks), forward, recipe.training, processes)
    except REFUSALS as error:
        raise bad_network(recipe.name, error) from None


def with_images(recipe: AutoencoderRecipe, images: TrainingSet, source: str) -> AutoencoderRecipe:
    """The recipe with the images' channels where it names none."""
    return with_channels_of(recipe, images, source)


def start_facts(start: str | None) -> StartFacts:
    """What a record says of `start`."""
    if start is None:
        return StartFacts()
    files = locate_autoencoder(start)
    return StartFacts(files.sha256, saw_tuning(files.folder))


def course(
    recipe: AutoencoderRecipe, start: str | None, images: TrainingSet, processes: "PartialState"
) -> "AutoencoderCourse":
    """The training of an autoencoder on its images; its discriminator always begins anew."""
    import torch

    from generation.families.vq_autoencoder.course import AutoencoderCourse
    from generation.families.vq_autoencoder.objective import new_objective
    from generation.training.data.images import even_batches

    channels = recipe.stage.channels
    assert channels is not None
    objective = new_objective(recipe, channels)
    if start is not None:
        _take_up(objective.modules["autoencoder"], locate_autoencoder(start).folder)
    told = torch.zeros(len(images.class_ids), dtype=torch.int64)  # it looks at no class
    config, data = recipe.training, images.told(told, channels)
    batches = even_batches(
        data, config, processes, flip=config.flip, updates=len(objective.updates)
    )
    return AutoencoderCourse(objective, batches)


def _take_up(network: Any, folder: Path) -> None:
    import torch
    from diffusers import VQModel

    from generation.pretrained.components import load_component

    network.load_state_dict(load_component(VQModel, folder, torch.float32).state_dict())


def _require_same(recipe: AutoencoderRecipe, start: str) -> None:
    """UserError for a start that is no VQModel, or one of another shape than the recipe's."""
    files, shape = locate_autoencoder(start), recipe.network
    if files.kind != "VQModel":
        raise UserError(f"--from {start} is an {files.kind}: this training goes on from a VQModel")
    theirs = files.config
    found = {
        "channels of images": theirs.get("in_channels"),
        "channels by level": tuple(theirs["block_out_channels"]),
        "blocks": theirs.get("layers_per_block"),
        "latent_channels": theirs.get("vq_embed_dim") or theirs.get("latent_channels"),
        "codes": theirs.get("num_vq_embeddings"),
        "attention": theirs.get("mid_block_add_attention", True),
    }
    wanted = {
        "channels of images": recipe.stage.channels or theirs.get("in_channels"),
        "channels by level": tuple(shape.base_channels * m for m in shape.multipliers),
        "blocks": shape.blocks,
        "latent_channels": shape.latent_channels,
        "codes": shape.codes,
        "attention": shape.attention,
    }
    for name, now in wanted.items():
        if found[name] != now:
            raise UserError(
                f"--from {start} has {name} {found[name]}, the recipe {now}: make them the same, "
                "or start from nothing"
            )
