"""The IDX files of the MNIST family, as Debian ships Fashion-MNIST."""

import gzip
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from release.classes.class_list import load_classes
from release.real_sources.source import RealSource

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian: dataset-fashion-mnist


@dataclass(frozen=True)
class IdxSplit:
    """A split of the MNIST family; the files hold bare pixels, so the bytes are made as PNG."""

    images: np.ndarray
    labels: Sequence[int]

    def key(self, i: int) -> str:
        return f"{i:06d}"

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self.images.tobytes()).hexdigest()

    def version(self, i: int) -> str:  # noqa: ARG002 - one file holds all images
        return self._sha256

    def read(self, i: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.images[i]).save(buffer, "PNG")
        return buffer.getvalue()


def read_fashion_mnist() -> RealSource:
    """From FASHION_MNIST_FOLDER."""
    splits = {"train": "train", "test": "t10k"}
    return RealSource(
        name="fashion-mnist",
        license="mit",
        classes=load_classes("fashion-mnist"),
        splits={
            split: IdxSplit(
                _read_idx(FASHION_MNIST_FOLDER / f"{stem}-images-idx3-ubyte.gz"),
                _read_idx(FASHION_MNIST_FOLDER / f"{stem}-labels-idx1-ubyte.gz").tolist(),
            )
            for split, stem in splits.items()
        },
    )


def _read_idx(path: Path) -> np.ndarray:
    """uint8 array of the IDX format: magic (its last byte the rank), sizes, data."""
    with gzip.open(path) as file:
        content = file.read()
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
