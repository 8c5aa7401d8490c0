"""DiT-XL/2 and its like: class-conditional latent transformers in diffusers' folder layout.

A class's label is its row in the model's embedding: build with the class list it was trained on.
"""

from pathlib import Path

from generation.diffusers_folder import locate_model, model_sha256
from generation.generators import Generator

LAYOUTS = {"DiTPipeline": ("scheduler", "transformer", "vae")}


def locate(checkpoint: str) -> Path:
    """The model's folder: a local one, else the Hub's cache, else fetched from the Hub."""
    return locate_model(checkpoint, LAYOUTS)


def sha256(folder: Path) -> str:
    """One hash over network, decoder and schedule."""
    return model_sha256(folder, LAYOUTS["DiTPipeline"])


def load(folder: Path, compiled: bool) -> Generator:
    """bfloat16 on the GPU if there is one, else float32 on the CPU."""
    from generation.dit import DiT
    from generation.placement import best_placement

    return DiT(folder, best_placement(compiled))
