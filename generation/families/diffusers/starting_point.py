"""What a LoRA is trained on: a pipeline in diffusers' layout, or one with a LoRA trained here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.families.diffusers.generator import base_folder, locate, sha256, size_problem
from generation.families.diffusers.kinds import FACTOR, KINDS, SHAPES, Kind
from generation.families.diffusers.recipe import LoraRecipe
from generation.pretrained.diffusers_folder import (
    HUB_NAME,
    INDEX,
    cached_model,
    component_config,
    index_components,
    model_sha256,
    pipeline_class,
    vae_factor,
)
from generation.pretrained.finetuned import Base, fine_tuned, lasting_name
from generation.pretrained.training_data import saw_tuning
from generation.training.trainable import StartFacts
from release.errors import UserError

if TYPE_CHECKING:
    import torch

    from generation.families.diffusers.network import LoraNetwork
    from generation.prompts.prompt_table import PromptTable

OTHERWISE = "or name a local folder or a mirror by --from"


def start_folder(start: str | None) -> Path:
    """Where the model, or the LoRA, stands; UserError if none is named, or it is out of reach."""
    return locate(_named(start), OTHERWISE)


def with_network_of(recipe: LoraRecipe, start: str | None) -> LoraRecipe:
    """The recipe with the network of its start; UserError for one that is not trained here, and for
    images that it cannot make."""
    folder = start_folder(start)
    base = base_folder(folder)
    kind = _kind(base, str(start))
    problem = size_problem(base, recipe.stage.resolution, None)
    if problem is not None:
        raise UserError(f"{start} {problem}")
    shape = component_config(base, kind.component)
    return _with_shape(recipe, pipeline_class(base), shape, vae_factor(base))


def with_planned_network(recipe: LoraRecipe, start: str | None) -> LoraRecipe:
    """The same of what can be known without fetching anything, in front of a dry run."""
    name = _named(start)
    told = fine_tuned(Path(name))
    name = name if told is None else told.base.checkpoint
    cached = Path(name) if Path(name).is_dir() else cached_model(name)
    if cached is not None and (cached / INDEX).is_file():
        shape = component_config(cached, _kind(cached, name).component)
        if shape:
            return _with_shape(recipe, pipeline_class(cached), shape, vae_factor(cached))
    match = HUB_NAME.fullmatch(name)
    known = SHAPES.get(match["repo"] if match else name)
    if known is None:
        raise UserError(
            f"the network of {name} is not known here: name a folder, or one of {', '.join(SHAPES)}"
        )
    return _with_shape(recipe, *known, FACTOR)


def _named(start: str | None) -> str:
    if start is None:
        raise UserError(
            "a LoRA changes a model that there is: name one, by `start` in the recipe or by --from"
        )
    return start


def _kind(base: Path, start: str) -> Kind:
    name = pipeline_class(base)
    if name not in KINDS:
        raise UserError(
            f"{start} is a {name}, which is not trained here: name one of {', '.join(KINDS)}"
        )
    if json.loads((base / INDEX).read_text()).get("is_distilled"):
        raise UserError(
            f"{start} is distilled to few steps, which a training undoes: name its base model"
        )
    return KINDS[name]


def _with_shape(
    recipe: LoraRecipe, pipeline: str, shape: dict[str, Any], factor: int
) -> LoraRecipe:
    named = {name: value for name, value in shape.items() if not name.startswith("_")}
    network = json.loads(json.dumps({"pipeline": pipeline, "factor": factor, "shape": named}))
    return recipe.model_copy(update={"network": network})


def start_facts(start: str | None) -> StartFacts:
    """What a record says of the start."""
    folder = start_folder(start)
    return StartFacts(sha256(folder), saw_tuning(folder))


def base_of(start: str | None) -> Base:
    """What a checkpoint is to say it changes: of a LoRA that was trained here, its own base."""
    folder = start_folder(start)
    told = fine_tuned(folder)
    if told is not None:
        return told.base
    text = [c for c in index_components(folder) if c.startswith(("text_encoder", "tokenizer"))]
    return Base(
        checkpoint=lasting_name(_named(start), folder),
        sha256=sha256(folder),
        text_sha256=model_sha256(folder, text),
    )


def starting_network(
    recipe: LoraRecipe, start: str | None, prompts: "PromptTable", dtype: "torch.dtype"
) -> "LoraNetwork":
    """What is frozen in `dtype`; the adapter in float32, drawn from the recipe's seed or, of a
    LoRA that was trained here, with its weights."""
    import diffusers
    import torch

    from generation.families.diffusers.adapter import add_adapter, load_adapter
    from generation.families.diffusers.network import LoraNetwork, asked_of
    from generation.networks.finite import require_finite
    from generation.pretrained.components import load_component

    folder = start_folder(start)
    base = base_folder(folder)
    pipeline = pipeline_class(base)
    kind = KINDS[pipeline]
    network = load_component(getattr(diffusers, kind.network), base / kind.component, dtype)
    require_finite(network.state_dict().items(), f"start {base}")
    torch.manual_seed(recipe.training.seed)
    add_adapter(network, recipe.lora, kind.targets)
    if folder != base:
        load_adapter(network, kind.component, folder)
    return LoraNetwork(network, prompts, asked_of(pipeline, recipe.stage.resolution))
