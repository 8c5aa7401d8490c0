"""Tiny models and recipes that a person brings beside the miniature, made once a process."""

import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

LORA = """
name = "tiny-lora"
description = "8 px colours"
classes = "three.csv"
generator = "diffusers"
start = "sdxl"

[stage]
resolution = 8

[lora]
rank = 2

[training]
steps = 4
batch = 4
warmup = 1
save_every = 2
keep_every = 2
"""


def autoencoder(folder: Path) -> None:
    """FOLDER/vae."""
    from tests.models.tiny_autoencoders import save_autoencoder

    save_autoencoder(folder / "vae")


def lora(folder: Path) -> None:
    """FOLDER/lora.toml, of FOLDER/sdxl."""
    from tests.models.tiny_models import save_sdxl

    save_sdxl(folder / "sdxl")
    (folder / "lora.toml").write_text(LORA)


def codebook(folder: Path) -> None:
    """FOLDER/codebook.toml: two levels of codes, of 16 px images."""
    from tests.models.codes.tiny_vq_vae import hierarchy_recipe
    from tests.recipe_text import as_toml

    recipe = hierarchy_recipe("three.csv", training={"keep_every": 2})
    (folder / "codebook.toml").write_text(as_toml(recipe))


def priors(folder: Path) -> None:
    """FOLDER/priors.toml: of the codes of FOLDER/codes."""
    from tests.models.codes.tiny_vq_vae import prior_recipe, save_tiny_autoencoder
    from tests.recipe_text import as_toml

    save_tiny_autoencoder(folder / "codes")
    recipe = prior_recipe("codes", "three.csv", training={"keep_every": 2})
    (folder / "priors.toml").write_text(as_toml(recipe))


def brought(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Copies what `make` makes into a folder."""
    return partial(_copy, make)


def _copy(make: Callable[[Path], None], folder: Path) -> None:
    shutil.copytree(_made(make).name, folder, dirs_exist_ok=True)


@cache
def _made(make: Callable[[Path], None]) -> "TemporaryDirectory[str]":
    place = TemporaryDirectory()
    make(Path(place.name))
    return place
