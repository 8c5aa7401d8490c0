"""BigGAN-deep with truncation: config.json and pytorch_model.bin in a folder, or fetched by name.

The weights are a pickle, of which tensors alone are read. A class's label is its row in the model's
embedding: build with ImageNet's class list.
"""

import hashlib
import json
from pathlib import Path

from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.image_sizes import from_nothing, one_size
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.downloads import download, model_cache
from release.errors import UserError

START = 4  # side of the first feature map
FILES = ("config.json", "pytorch_model.bin")
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
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{checkpoint} is not a BigGAN checkpoint: no {missing[0]} there; "
            f"name such a folder or one of {', '.join(PUBLIC)}"
        )
    return folder


def sha256(folder: Path) -> str:
    """One hash over both files."""
    return hashlib.sha256(" ".join(file_sha256(folder / f) for f in FILES).encode()).hexdigest()


def size_problem(folder: Path | None, resolution: int, parent: int | None) -> str | None:
    """What keeps it from being a first stage of `resolution` px."""
    if folder is None:
        return from_nothing(parent)
    layers = json.loads((folder / "config.json").read_text())["layers"]
    side = START * 2 ** sum(doubles for doubles, _, _ in layers)
    return from_nothing(parent) or one_size(side, resolution)


def load(folder: Path, compiled: bool) -> Generator:
    """float32 on the GPU if there is one, else on the CPU."""
    from generation.families.biggan.network import BigGANGenerator
    from generation.networks.placement import best_placement

    return BigGANGenerator(folder, best_placement(compiled))


def work(checkpoint: str, resolution: int) -> Work | None:
    """What an image of the public weights takes."""
    from generation.families.biggan.work import published_work

    return published_work(resolution) if checkpoint == f"biggan-deep-{resolution}" else None
