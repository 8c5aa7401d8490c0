"""What training a stage takes, found from its network's shape before any of it is taken."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from generation.families.deepfloyd_if.network import TOKENS, IFNetwork
from generation.families.deepfloyd_if.pipeline import IF_TOKENS
from generation.families.deepfloyd_if.recipe import DeepFloydIFRecipe
from generation.prompts.prompt_table import PromptTable
from generation.training.memory import TrainingMemory, training_memory
from release.errors import UserError

REFUSALS = (  # what diffusers and torch raise for a config that makes no network
    *(TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError),
    AssertionError,
)


def planned_memory(recipe: DeepFloydIFRecipe, processes: int) -> TrainingMemory:
    """In each of `processes`; UserError for a config that makes no network."""
    try:
        network = _planned_network(recipe.network)
        side = recipe.stage.resolution

        def forward(images: int) -> None:
            zeros = torch.zeros(images, 3, side, side, device="meta")
            numbers = torch.zeros(images, dtype=torch.int64, device="meta")
            follows = recipe.stage.low_resolution is not None
            network(zeros, numbers, numbers, *((zeros, numbers) if follows else ()))

        return training_memory(network, forward, recipe.training, processes)
    except REFUSALS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"training recipe {recipe.name}: its start's U-Net: {reason}") from None


def _planned_network(shape: dict[str, Any]) -> IFNetwork:
    """Without weights, on torch's meta device: it takes no memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(shape)
        tokens = torch.zeros(1, IF_TOKENS, shape["encoder_hid_dim"])
        table = PromptTable(("",), {TOKENS: tokens})
        return IFNetwork(unet, table).to("meta")
