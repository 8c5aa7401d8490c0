"""LoRA of a text-to-image pipeline: the interface of generation/training/trainable.py."""

from pathlib import Path
from typing import TYPE_CHECKING

from generation.families.diffusers.generator import NAME, base_folder
from generation.families.diffusers.kinds import KINDS, Kind
from generation.families.diffusers.recipe import LoraRecipe
from generation.families.diffusers.starting_point import (
    base_of,
    start_facts,
    start_folder,
    starting_network,
    with_network_of,
    with_planned_network,
)
from generation.pretrained.autoencoder_files import AutoencoderFiles
from generation.pretrained.finetuned import FineTuned
from generation.training.config import PRECISION_NAMES
from generation.training.data.training_set import TrainingSet
from release.classes.class_list import load_classes
from release.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

    from generation.families.diffusers.course import LoraCourse
    from generation.families.diffusers.latents import SeenLatents
    from generation.families.diffusers.network import LoraNetwork
    from generation.families.diffusers.objective import FlowTraining, LoraObjective
    from generation.families.diffusers.pipeline import PipelineGenerator
    from generation.networks.placement import Placement
    from generation.prompts.prompt_table import PromptTable
    from generation.training.denoising import NoisyTraining
    from generation.training.memory import TrainingMemory

__all__ = [
    "LATENTS",
    "RECIPE",
    "course",
    "memory",
    "planned",
    "sides",
    "start_facts",
    "with_images",
    "with_start",
]

RECIPE = LoraRecipe
LATENTS = True
with_start = with_network_of
planned = with_planned_network


def sides(recipe: LoraRecipe) -> tuple[int, ...]:
    """The stage's own."""
    return (recipe.stage.resolution,)


def memory(recipe: LoraRecipe, processes: int) -> "TrainingMemory":
    """In each of `processes`; UserError for a start whose config makes no network."""
    from generation.families.diffusers.memory import planned_memory

    return planned_memory(recipe, processes)


def with_images(recipe: LoraRecipe, images: TrainingSet, source: str) -> LoraRecipe:
    """The recipe as it is; UserError for latents that have no mirrored ones where it wants them."""
    if images.latents is not None and recipe.training.flip and not images.latents.mirrored:
        raise UserError(
            f"{source} has no latents of mirrored images, which flip = true needs: make them "
            "with `release encode --mirrored`, or set flip = false"
        )
    return recipe


def course(
    recipe: LoraRecipe, start: str | None, images: TrainingSet, processes: "PartialState"
) -> "LoraCourse":
    """The training of an adapter; the classes' prompts are embedded first, once.

    UserError for latents of another autoencoder than the start's.
    """
    import torch

    from generation.families.diffusers.course import LoraCourse
    from generation.networks.placement import Placement
    from generation.training.data.images import even_batches

    config, base = recipe.training, base_folder(start_folder(start))
    _require_its_latents(base, images)
    precision = PRECISION_NAMES[config.precision]
    placement = Placement(processes.device.type, getattr(torch, precision))
    texts = tuple(c.prompt for c in load_classes(recipe.classes))
    with processes.main_process_first():  # the others find the embeddings it left
        prompts = _prompt_table(base, placement, texts)
    network = starting_network(recipe, start, prompts, placement.dtype)
    data = images.told(prompts.numbers(texts), 3)
    component = KINDS[recipe.network["pipeline"]].component
    about = FineTuned(
        generator=NAME,
        resolution=recipe.stage.resolution,
        precision=precision,
        base=base_of(start),
    )
    return LoraCourse(
        _objective(recipe, base, network, images, placement.device),
        even_batches(data, config, processes, flip=config.flip),
        about,
        component,
        _prepared(base, placement, component, network) if processes.is_main_process else None,
    )


def _objective(
    recipe: LoraRecipe, base: Path, network: "LoraNetwork", images: TrainingSet, device: str
) -> "LoraObjective":
    from generation.families.diffusers.objective import LoraObjective

    kind, dropout = KINDS[recipe.network["pipeline"]], recipe.training.caption_dropout
    latents = _seen_latents(base, kind, images, device)
    return LoraObjective(network, latents, _training(base, kind, network.prompts.null, dropout))


def _prepared(
    base: Path, placement: "Placement", component: str, network: "LoraNetwork"
) -> "PipelineGenerator":
    """The pipeline, loaded, which samples the network as it is trained."""
    from generation.families.diffusers.pipeline import PipelineGenerator

    generator = PipelineGenerator(base, placement, given={component: network.base})
    generator.prepare()
    return generator


def _autoencoder(base: Path) -> AutoencoderFiles:
    return AutoencoderFiles(str(base), base / "vae")


def _require_its_latents(base: Path, images: TrainingSet) -> None:
    if images.latents is not None and images.latents.sha256 != _autoencoder(base).sha256:
        raise UserError(
            f"{images.wanted.release} holds latents of {images.latents.autoencoder}, which is not "
            f"the autoencoder of {base}: make them with `release encode --autoencoder`, or name "
            "the images' release"
        )


def _prompt_table(base: Path, placement: "Placement", texts: tuple[str, ...]) -> "PromptTable":
    """In the precision and on the kind of device that samples them, in which they are kept."""
    from generation.families.diffusers.text import NULL_PROMPT, PipelineText
    from generation.prompts.prompt_table import PromptTable

    text, prompts = PipelineText(base, placement), (*dict.fromkeys(texts), NULL_PROMPT)
    missing = text.missing(prompts)
    if missing:
        text.encode(missing)
    return PromptTable(prompts, text.load(prompts))


def _seen_latents(base: Path, kind: Kind, images: TrainingSet, device: str) -> "SeenLatents":
    from generation.families.diffusers.latents import PatchedLatents, SeenLatents
    from generation.pretrained.autoencoder import Autoencoder

    encodes = images.latents is None
    if kind.flow:
        return PatchedLatents.by(Autoencoder(_autoencoder(base), device), encodes=encodes)
    return SeenLatents(Autoencoder(_autoencoder(base), device) if encodes else None)


def _training(base: Path, kind: Kind, null: int, dropout: float) -> "FlowTraining | NoisyTraining":
    from generation.families.diffusers.objective import FlowTraining
    from generation.pretrained.diffusers_folder import noise_schedule
    from generation.training.denoising import NoisyTraining

    if kind.flow:
        return FlowTraining(null, dropout)
    schedule, prediction = noise_schedule(base / "scheduler")
    return NoisyTraining(prediction, schedule, null, dropout, max_augmentation=0.0)
