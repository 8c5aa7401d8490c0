"""What a training starts from: nothing, or a checkpoint of the same network."""

from pathlib import Path

import torch
from torch import Tensor

from generation.denoisers.checkpoint import load_checkpoint
from generation.denoisers.checkpoint_files import read_config, resolve
from generation.denoisers.family import Family
from generation.denoisers.network import Denoiser
from generation.denoisers.recipe import DenoiserConfig, DenoiserRecipe, config_of
from generation.training.memory import TrainingMemory, training_memory
from release.errors import UserError

REFUSALS = (  # what torch raises for a shape that makes no network, or one that sees no such image
    *(TypeError, ValueError, RuntimeError, ArithmeticError, LookupError),
    AssertionError,
)
COLOUR = 3  # channels of a stage whose data has not been seen yet


def require_same(
    family: Family, recipe: DenoiserRecipe, prompts: tuple[str, ...], start: str
) -> Path:
    """The folder of a checkpoint that the recipe may go on from; UserError if it is of another."""
    folder = resolve(family, start)
    found = read_config(family, folder)
    wanted = config_of(recipe, prompts, found.channels)
    for table, theirs, ours in (
        ("stage", found.stage.task(), wanted.stage.task()),
        ("network", found.network.model_dump(), wanted.network.model_dump()),
    ):
        for field, now in ours.items():
            was = theirs.get(field)
            if was != now:
                raise UserError(
                    f"--from {start} has {field} {was}, the recipe's [{table}] {now}: make them "
                    "the same, or start from nothing"
                )
    if found.classes != wanted.classes:
        raise UserError(f"--from {start} learned other classes than those of {recipe.classes}")
    return folder


def starting_network(
    family: Family, recipe: DenoiserRecipe, prompts: tuple[str, ...], start: str | None
) -> Denoiser:
    """The network to train; from nothing (None) its weights follow from the recipe's seed."""
    if start is not None:
        return load_checkpoint(family, require_same(family, recipe, prompts, start))
    torch.manual_seed(recipe.training.seed)
    return _new(family, recipe, config_of(recipe, prompts, COLOUR))


def planned_memory(
    family: Family, recipe: DenoiserRecipe, prompts: tuple[str, ...], processes: int
) -> TrainingMemory:
    """In each of `processes`; UserError for a [network] that cannot be, or not see its images."""
    network = planned_network(family, recipe, prompts)
    stage, channels = network.config.stage, network.config.channels

    def forward(images: int) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(images, *shape, dtype=dtype, device="meta")

        low = stage.low_resolution
        parent = None if low is None else zeros(channels, low, low)
        network(zeros(*network.seen), zeros(), zeros(dtype=torch.int64), parent)

    try:
        return training_memory(network, forward, recipe.training, processes)
    except REFUSALS as error:
        raise bad_network(recipe.name, error) from None


def planned_network(family: Family, recipe: DenoiserRecipe, prompts: tuple[str, ...]) -> Denoiser:
    """The recipe's network without its weights, on torch's meta device: it takes no memory."""
    with torch.device("meta"):
        return _new(family, recipe, config_of(recipe, prompts, COLOUR))


def _new(family: Family, recipe: DenoiserRecipe, config: DenoiserConfig) -> Denoiser:
    try:
        return family.network(config)
    except REFUSALS as error:
        raise bad_network(recipe.name, error) from None


def bad_network(recipe: str, error: Exception) -> UserError:
    """One of REFUSALS, in a line."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"training recipe {recipe}, [network]: {reason}")
