"""What the training of a stage starts from: a model in diffusers' layout, or one trained here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.families.deepfloyd_if.generator import (
    TEXT,
    locate,
    sha256,
    text_folder,
)
from generation.families.deepfloyd_if.published import SHAPES
from generation.families.deepfloyd_if.recipe import DeepFloydIFRecipe
from generation.pretrained.diffusers_folder import (
    HUB_NAME,
    INDEX,
    cached_model,
    component_config,
    model_sha256,
    pipeline_class,
)
from generation.pretrained.finetuned import Base, fine_tuned, lasting_name
from generation.pretrained.training_data import saw_tuning
from generation.training.trainable import StartFacts
from release.errors import UserError

if TYPE_CHECKING:
    from generation.families.deepfloyd_if.network import IFNetwork
    from generation.families.deepfloyd_if.objective import StageSchedules

OTHERWISE = "or name a local folder or a mirror by --from"
KINDS = {"IFPipeline": "a first stage", "IFSuperResolutionPipeline": "a second stage"}


def start_folder(start: str | None) -> Path:
    """Where the model stands; UserError if none is named, or it is out of reach."""
    return locate(_named(start), OTHERWISE)


def with_network_of(recipe: DeepFloydIFRecipe, start: str | None) -> DeepFloydIFRecipe:
    """The recipe with the network of its start; UserError if that is of another stage."""
    folder = start_folder(start)
    kind = pipeline_class(folder)
    if kind not in KINDS:
        raise UserError(
            f"{start} is a {kind}, which is not trained here: name one of IF-I or IF-II"
        )
    wanted = "IFPipeline" if recipe.stage.low_resolution is None else "IFSuperResolutionPipeline"
    shape = component_config(folder, "unet")
    if kind != wanted:
        raise UserError(f"{start} is {KINDS[kind]} of IF, the recipe trains {KINDS[wanted]}")
    return _with_shape(recipe, shape, str(start))


def with_planned_network(recipe: DeepFloydIFRecipe, start: str | None) -> DeepFloydIFRecipe:
    """The same of what can be known without fetching anything, in front of a dry run."""
    name = _named(start)
    cached = Path(name) if Path(name).is_dir() else cached_model(name)
    shape = component_config(cached, "unet") if cached is not None else {}
    if not shape:
        match = HUB_NAME.fullmatch(name)
        shape = SHAPES.get(match["repo"] if match else name, {})
    if not shape:
        raise UserError(
            f"the network of {name} is not known here: name a folder, or one of {', '.join(SHAPES)}"
        )
    return _with_shape(recipe, json.loads(json.dumps(shape)), name)


def _named(start: str | None) -> str:
    if start is None:
        raise UserError(
            "DeepFloyd IF is fine-tuned, not trained from nothing: name a model, by `start` in the "
            "recipe or by --from"
        )
    return start


def _with_shape(recipe: DeepFloydIFRecipe, shape: dict[str, Any], start: str) -> DeepFloydIFRecipe:
    if shape["sample_size"] != recipe.stage.resolution:
        raise UserError(
            f"{start} makes images of {shape['sample_size']} px, the recipe's stage has resolution "
            f"{recipe.stage.resolution}"
        )
    named = {name: value for name, value in shape.items() if not name.startswith("_")}
    return recipe.model_copy(update={"network": named})


def start_facts(start: str | None) -> StartFacts:
    """What a record says of the start."""
    folder = start_folder(start)
    return StartFacts(sha256(folder), saw_tuning(folder))


def base_of(start: str | None) -> Base:
    """What a checkpoint is to say it came from: of a start that was trained here, its own base."""
    folder = start_folder(start)
    told = fine_tuned(folder)
    if told is not None:
        return told.base
    return Base(
        checkpoint=lasting_name(_named(start), folder),
        sha256=sha256(folder),
        text_sha256=model_sha256(folder, TEXT),
    )


def starting_network(
    folder: Path, texts: tuple[str, ...], precision: str, device: str
) -> "IFNetwork":
    """The U-Net in float32, with the embeddings of `texts` and of the null prompt.

    They are encoded once and kept on disk, in the precision and on the kind of device that samples
    them; the text encoder is gone before the U-Net is loaded.
    """
    import torch
    from diffusers import UNet2DConditionModel

    from generation.families.deepfloyd_if.network import NULL_PROMPT, TOKENS, IFNetwork
    from generation.families.deepfloyd_if.pipeline import TextEncoder
    from generation.networks.finite import require_finite
    from generation.pretrained.components import load_component
    from generation.prompts.prompt_table import PromptTable

    dtype = torch.float32 if device == "cpu" else getattr(torch, precision)
    prompts = (*dict.fromkeys(texts), NULL_PROMPT)
    tokens = TextEncoder(text_folder(folder), "t5", device, dtype).embed(prompts).to(dtype)
    unet = load_component(UNet2DConditionModel, folder / "unet", torch.float32)
    require_finite(unet.state_dict().items(), f"start {folder}")
    if unet.config.encoder_hid_dim != tokens.shape[-1]:
        raise UserError(
            f"{folder}: its U-Net reads texts of width {unet.config.encoder_hid_dim}, its text "
            f"encoder writes {tokens.shape[-1]}"
        )
    return IFNetwork(unet, PromptTable(prompts, {TOKENS: tokens}))


def stage_schedules(folder: Path) -> "StageSchedules":
    """How the start's images and their parents become noise."""
    from generation.families.deepfloyd_if.objective import StageSchedules
    from generation.families.deepfloyd_if.pipeline import FAMILIES
    from generation.pretrained.diffusers_folder import noise_schedule

    images, prediction = noise_schedule(folder / "scheduler")
    parents = FAMILIES[pipeline_class(folder)].parent_schedule
    noising = None if parents is None else noise_schedule(folder / parents)[0]
    return StageSchedules(images, prediction, noising)


def describing_files(folder: Path) -> dict[str, bytes]:
    """What a checkpoint copies of its start: the index and the schedules."""
    schedules = ("scheduler", "image_noising_scheduler")
    names = [INDEX, *(f"{component}/scheduler_config.json" for component in schedules)]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
