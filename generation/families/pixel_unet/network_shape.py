"""A recipe's [network]: what diffusers' U-Net is built with, beside what the stage decides."""

import inspect
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from generation.families.pixel_unet.network import (
    STAGE_ARGUMENTS,
    PixelUNet,
    StageConfig,
    build_unet,
)
from generation.families.pixel_unet.recipe import PixelUNetRecipe, StageRecipe
from generation.prompts.conditioning import embed_conditions
from generation.prompts.text_encoder import PromptEmbeddings
from release.errors import UserError

COLOUR = 3  # channels of a stage whose data has not been seen yet
WIDTHS = "block_out_channels"
REFUSALS = (  # what diffusers and torch raise for arguments that make no network
    *(TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError),
    AssertionError,
)

Shape = dict[str, Any]


@cache
def stage_and_prompts(
    stage: StageRecipe, texts: tuple[str, ...]
) -> tuple[StageConfig, PromptEmbeddings]:
    """The stage of a new network that is told `texts`, and what it sees for each of them."""
    prompts, encoder = embed_conditions(stage.conditioning, texts)
    settings = stage.model_dump() | {"channels": stage.channels or COLOUR}
    return StageConfig(**settings, text_encoder=encoder, prompts=prompts.prompts), prompts


def planned_network(recipe: PixelUNetRecipe, texts: tuple[str, ...]) -> PixelUNet:
    """The recipe's network without its weights, on torch's meta device: it takes no memory.

    UserError for a [network] that cannot be, and for one that does not say its widths: diffusers'
    own make 860 M parameters.
    """
    if WIDTHS not in recipe.network:
        raise UserError(
            f"training recipe {recipe.name}, [network]: say the widths of the U-Net's levels, such "
            f"as {WIDTHS} = [32, 64, 96], and the block types that go with them, as in "
            "generation/training/recipes/fashion-mnist-16.toml; or leave [network] empty with "
            "--from, and it is the start's"
        )
    config, prompts = stage_and_prompts(recipe.stage, texts)
    try:
        with torch.device("meta"):
            return build_unet(config, prompts, recipe.network).to("meta")
    except REFUSALS as error:
        raise bad_network(recipe, error) from None


def bad_network(recipe: PixelUNetRecipe, error: Exception) -> UserError:
    """What diffusers says of the recipe's [network]."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"training recipe {recipe.name}, [network]: {reason}")


def shape_in(config: Mapping[str, Any]) -> Shape:
    """The [network] that makes the U-Net of a config.json: what is not as diffusers has it."""
    usual = _usual()
    return {
        name: value
        for name, value in config.items()
        if name in usual and name not in STAGE_ARGUMENTS and value != usual[name]
    }


def differences(one: Shape, other: Shape) -> list[tuple[str, Any, Any]]:
    """The arguments in which two shapes differ, by name, each with both values."""
    first, second = (json.loads(json.dumps(_usual() | shape)) for shape in (one, other))
    return [(n, first.get(n), second.get(n)) for n in sorted(first) if first[n] != second.get(n)]


@cache
def _usual() -> Shape:
    """diffusers' own arguments, as JSON has them."""
    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters
    usual = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return dict(json.loads(json.dumps(usual)))
