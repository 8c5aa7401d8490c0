"""What training a recipe's network takes of memory, found before any of it is taken."""

import torch
from torch import Tensor

from generation.families.pixel_unet.network_shape import REFUSALS, bad_network, planned_network
from generation.families.pixel_unet.recipe import PixelUNetRecipe
from generation.training.memory import TrainingMemory, training_memory


def planned_memory(
    recipe: PixelUNetRecipe, texts: tuple[str, ...], processes: int
) -> TrainingMemory:
    """In each of `processes`; UserError for a [network] that cannot be, or not see its images."""
    network = planned_network(recipe, texts)
    config = network.config

    def forward(images: int) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(images, *shape, dtype=dtype, device="meta")

        inputs = [
            zeros(config.channels, config.resolution, config.resolution),
            zeros(dtype=torch.int64),
            zeros(dtype=torch.int64),
        ]
        if config.low_resolution is not None:
            low = config.low_resolution
            inputs += [zeros(config.channels, low, low), zeros()]
        network(*inputs)

    try:
        return training_memory(network, forward, recipe.training, processes)
    except REFUSALS as error:
        raise bad_network(recipe, error) from None
