"""Checkpoints that are one file in their authors' layout: found, read without running code."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import SafetensorError

from generation.diffusion.sampler_config import FLOW_METHODS
from generation.generator import Generator
from generation.networks.flops import Work
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.downloads import model_cache
from release.errors import UserError
from release.files.checked_files import STATE_ERRORS
from release.files.commit import sha256_text

if TYPE_CHECKING:
    from torch import Tensor


class Hashed(Protocol):
    """What else a model is made of, by the hash of its content."""

    @property
    def sha256(self) -> str: ...


@dataclass
class SingleFile:
    """A generator source (generation/generator.py) whose model is one file.

    source: where its authors offer it, in words. problem: of (resolution, parent), see
    `size_problem`. loader: of (file, compiled). counted: of (checkpoint, resolution), see `work`.
    beside: of the file, what else it needs, such as an autoencoder; UserError if out of reach.
    sampled_by: see `methods`.
    """

    source: str
    problem: Callable[[int, int | None], str | None]
    loader: Callable[[Path, bool], Generator]
    counted: Callable[[str, int], Work | None] = lambda _checkpoint, _resolution: None
    beside: Callable[[Path], Hashed] | None = None
    sampled_by: tuple[str, ...] = FLOW_METHODS

    def locate(self, checkpoint: str) -> Path:
        """The file named, or the one of that name in the model cache."""
        file = locate_file(checkpoint, self.source)
        if self.beside is not None:
            self.beside(file)
        return file

    def sha256(self, file: Path) -> str:
        """Of all that decides the pixels: the checkpoint file, as downloaded, and what it needs."""
        if self.beside is None:
            return file_sha256(file)
        return sha256_text(f"{file_sha256(file)} {self.beside(file).sha256}")

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return self.sampled_by

    def size_problem(self, _file: Path | None, resolution: int, parent: int | None) -> str | None:
        """Why it makes no image of `resolution` px from one of `parent` px; None if it does."""
        return self.problem(resolution, parent)

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """What an image takes of arithmetic, where that is known without the file."""
        return self.counted(checkpoint, resolution)

    def load(self, file: Path, compiled: bool) -> Generator:
        """The model, its networks run through torch.compile if `compiled`."""
        return self.loader(file, compiled)


def files_sha256(folder: Path, names: Sequence[str]) -> str:
    """One hash over the contents of `names` in `folder`, in that order."""
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def locate_file(checkpoint: str, source: str) -> Path:
    """The file named, or the one of that name in the model cache; UserError says where to get it.

    source: where its authors offer it, in words.
    """
    named, cached = Path(checkpoint), model_cache() / Path(checkpoint).name
    for file in (named, cached):
        if file.is_file():
            return file
    raise UserError(
        f"{checkpoint} is not on this machine: download it from {source} and put it at {cached}, "
        "or name the file as the stage's checkpoint; `--recipe fashion-mnist` needs no download"
    )


def read_tensors(file: Path, of: str = "state_dict") -> "dict[str, Tensor]":
    """The tensors of a .safetensors file or of a pickle, read as weights alone.

    Of a training checkpoint what it keeps as `of` is taken; what else its pickle names (callbacks,
    an optimiser's state) becomes inert placeholders, and no code of it runs. Raises UserError if
    the state dict holds anything but tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals(_placeholders(file)):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (*STATE_ERRORS, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{file} cannot be read as weights alone ({reason}): give its tensors as a "
            ".safetensors file"
        ) from None
    if isinstance(content, dict):
        content = content.get(of, content)
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise UserError(f"{file} holds no state dict: give the checkpoint as its authors saved it")
    return content


class Placeholder:
    """Stands for an object of a class that a checkpoint names and nobody here needs."""

    def __new__(cls, *_: object) -> "Placeholder":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


def _placeholders(file: Path) -> list[Any]:
    """For every class or function that torch would not load as weights, one that does nothing."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = get_unsafe_globals_in_checkpoint(file)
    except ValueError:  # torch's layout before 1.6, which it cannot look through
        return []
    # a class each: torch keeps the allowed ones by their last name
    return [(type("Placeholder", (Placeholder,), {}), name) for name in names]
