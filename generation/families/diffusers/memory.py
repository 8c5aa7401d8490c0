"""What training a LoRA takes, found from the network's shape before any of it is taken."""

from typing import Any

import torch

from generation.families.diffusers.adapter import add_adapter
from generation.families.diffusers.kinds import FLUX2, KINDS, SDXL
from generation.families.diffusers.network import LoraNetwork, asked_of
from generation.families.diffusers.recipe import LoraRecipe
from generation.prompts.prompt_table import PromptTable
from generation.training.memory import FLOAT, HALF, TrainingMemory, training_memory
from release.classes.class_list import load_classes
from release.errors import UserError

REFUSALS = (  # what diffusers and torch raise for a config that makes no network
    *(TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError),
    AssertionError,
)
CLIP_TOKENS, QWEN_TOKENS = 77, 512  # of a prompt
TIME_IDS = 6  # what SDXL is told of an image's size, beside its pooled text


def planned_memory(recipe: LoraRecipe, processes: int) -> TrainingMemory:
    """In each of `processes`; UserError for a config that makes no network.

    Of a training on latents: an autoencoder that encodes images comes on top.
    """
    pipeline, shape = recipe.network["pipeline"], recipe.network["shape"]
    try:
        with torch.device("meta"):
            network = _planned_network(recipe, pipeline, shape)
        side = recipe.stage.resolution // recipe.network["factor"]
        channels = shape["in_channels"]
        if pipeline == FLUX2:
            side //= 2

        def forward(images: int) -> None:
            zeros = torch.zeros(images, channels, side, side, device="meta")
            network(zeros, zeros[:, 0, 0, 0], torch.zeros(images, dtype=torch.int64, device="meta"))

        held = _prompt_bytes(recipe, pipeline, shape)
        return training_memory(network, forward, recipe.training, processes, held)
    except REFUSALS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"training recipe {recipe.name}: its start's network: {reason}") from None


def _planned_network(recipe: LoraRecipe, pipeline: str, shape: dict[str, Any]) -> LoraNetwork:
    """Without weights: it takes no memory."""
    import diffusers

    kind = KINDS[pipeline]
    base = getattr(diffusers, kind.network).from_config(shape)
    add_adapter(base, recipe.lora, kind.targets)
    text = {name: torch.zeros(1, *size) for name, size in _text(pipeline, shape).items()}
    return LoraNetwork(
        base, PromptTable(("",), text), asked_of(pipeline, recipe.stage.resolution)
    ).to("meta")


def _text(pipeline: str, shape: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of what a network is told of a prompt."""
    if pipeline == FLUX2:
        return {"prompt_embeds": (QWEN_TOKENS, shape["joint_attention_dim"])}
    tokens: dict[str, tuple[int, ...]] = {
        "prompt_embeds": (CLIP_TOKENS, shape["cross_attention_dim"])
    }
    if pipeline != SDXL:
        return tokens
    sizes = TIME_IDS * shape["addition_time_embed_dim"]
    pooled = shape["projection_class_embeddings_input_dim"] - sizes
    return {**tokens, "pooled_prompt_embeds": (pooled,)}


def _prompt_bytes(recipe: LoraRecipe, pipeline: str, shape: dict[str, Any]) -> int:
    prompts = {c.prompt for c in load_classes(recipe.classes)}
    numbers = sum(torch.Size(size).numel() for size in _text(pipeline, shape).values())
    return (len(prompts) + 1) * numbers * (FLOAT if recipe.training.precision == "no" else HALF)
