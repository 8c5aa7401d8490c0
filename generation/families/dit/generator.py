"""DiT-XL/2 and its like: class-conditional latent transformers in diffusers' folder layout.

A class's label is its row in the model's embedding: build with the class list it was trained on.
"""

from pathlib import Path

from generation.generator import Generator
from generation.networks.image_sizes import from_nothing, one_size
from generation.pretrained.diffusers_folder import (
    component_config,
    locate_model,
    model_sha256,
    vae_factor,
)

LAYOUTS = {"DiTPipeline": ("scheduler", "transformer", "vae")}


def locate(checkpoint: str) -> Path:
    """The model's folder: a local one, else the Hub's cache, else fetched from the Hub."""
    return locate_model(checkpoint, LAYOUTS)


def sha256(folder: Path) -> str:
    """One hash over network, decoder and schedule."""
    return model_sha256(folder, LAYOUTS["DiTPipeline"])


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps it from being a first stage of `resolution` px."""
    if folder is None:
        return from_nothing(parent)
    side = component_config(folder, "transformer")["sample_size"] * vae_factor(folder)
    return from_nothing(parent) or one_size(side, resolution)


def load(folder: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU."""
    from generation.families.dit.sampling import DiT
    from generation.networks.placement import best_placement

    return DiT(folder, best_placement(compiled))
