"""BigGAN-deep with truncation: config.json and weights in a folder, or fetched by name.

The published weights are a pickle, of which tensors alone are read. A class's label is its row in
the model's embedding: build with ImageNet's class list, or that of the training.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing, one_size
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.downloads import download, model_cache
from release.errors import UserError

START = 4  # side of the first feature map
CONFIG, WEIGHTS = "config.json", "pytorch_model.bin"
TRAINED_WEIGHTS = "weights.safetensors"  # of a training of ours, in place of the pickle
FILES = (CONFIG, WEIGHTS)
PUBLIC = ("biggan-deep-128", "biggan-deep-256", "biggan-deep-512")
ADDRESS = "https://s3.amazonaws.com/models.huggingface.co/biggan"  # as the public package has it


def locate(checkpoint: str) -> Path:
    """A folder with both files, or one of PUBLIC, fetched once into the cache."""
    if checkpoint in PUBLIC:
        folder = model_cache() / checkpoint
        for name in FILES:
            download(f"{ADDRESS}/{checkpoint}-{name}", folder / name)
        return folder
    folder = Path(checkpoint)
    missing = [name for name in files_of(folder) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{checkpoint} is not a BigGAN checkpoint: no {missing[0]} there; "
            f"name such a folder or one of {', '.join(PUBLIC)}"
        )
    return folder


def files_of(folder: Path) -> tuple[str, str]:
    """Config and weights: as published, or as a training of ours leaves them."""
    return (CONFIG, TRAINED_WEIGHTS) if (folder / TRAINED_WEIGHTS).is_file() else FILES


def sha256(folder: Path) -> str:
    """One hash over both files."""
    hashes = [file_sha256(folder / name) for name in files_of(folder)]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def trained_resolution(folder: Path) -> int | None:
    """The side of its images in px; None for a folder that holds no training's checkpoint."""
    config = folder / CONFIG
    if not (config.is_file() and (folder / TRAINED_WEIGHTS).is_file()):
        return None
    content = json.loads(config.read_text())
    return _side(content) if "channel_width" in content else None


def methods() -> tuple[str, ...]:
    """The sampler methods that it takes."""
    return ("truncation",)


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps it from being a first stage of `resolution` px."""
    if folder is None:
        return from_nothing(parent)
    side = _side(json.loads((folder / CONFIG).read_text()))
    return from_nothing(parent) or one_size(side, resolution)


def _side(config: dict[str, Any]) -> int:
    """Of the images, in px."""
    return int(START * 2 ** sum(doubles for doubles, _, _ in config["layers"]))


def load(folder: Path, compiled: bool) -> Generator:
    """float32 on the GPU if there is one, else on the CPU."""
    from generation.families.biggan.network import BigGANGenerator, load_biggan
    from generation.networks.placement import best_placement

    return BigGANGenerator(load_biggan(folder), best_placement(compiled))


def work(checkpoint: str, resolution: int) -> Work | None:
    """What an image of the public weights takes."""
    from generation.families.biggan.work import published_work

    return published_work(resolution) if checkpoint == f"biggan-deep-{resolution}" else None
