"""Where real images come from: Fashion-MNIST's IDX files, image folders, Hub data sets.

A source gives, for each split, the images in a fixed order, each with a stable key, its label and
its original bytes, so that any stretch of it can be read by any process.
"""

import gzip
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from generation.classes import ClassEntry, load_classes
from generation.errors import UserError

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian: dataset-fashion-mnist
FASHION_MNIST_HUB = "zalando-datasets/fashion_mnist"
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


class RealSplit(Protocol):
    """One split: labels int[N], a stable key for each image, and its bytes as they came.

    version: changes when the bytes do, and is told without reading them. read: raises OSError or
    UserError where there is nothing to read.
    """

    @property
    def labels(self) -> Sequence[int]: ...
    def key(self, i: int) -> str: ...
    def version(self, i: int) -> str: ...
    def read(self, i: int) -> bytes: ...


@dataclass(frozen=True)
class RealSource:
    """A real data set. licence: its own, "unknown" where the source does not say.

    revision: the commit of a data set on the Hub, or the fingerprint that `datasets` gives it.
    """

    name: str
    license: str
    classes: tuple[ClassEntry, ...]
    splits: Mapping[str, RealSplit]
    revision: str | None = None


@lru_cache(maxsize=2)
def open_source(name: str) -> RealSource:
    """`fashion-mnist`, a folder SPLIT/CLASS/image, or a Hub data set `org/name`.

    Raises UserError with what to install or download if the data is out of reach.
    """
    if name == "fashion-mnist":
        return _fashion_mnist()
    if Path(name).is_dir():
        return _folder(Path(name))
    return _hub(name, name.replace("/", "--"))


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


def _fashion_mnist() -> RealSource:
    if not FASHION_MNIST_FOLDER.is_dir():
        return _hub(FASHION_MNIST_HUB, "fashion-mnist")
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


@dataclass(frozen=True)
class FolderSplit:
    """Image files below one folder a class."""

    files: Sequence[Path]
    labels: Sequence[int]

    def key(self, i: int) -> str:
        return f"{self.files[i].parent.name}/{self.files[i].name}"

    def version(self, i: int) -> str:
        return file_version(self.files[i])

    def read(self, i: int) -> bytes:
        return self.files[i].read_bytes()


def _folder(root: Path) -> RealSource:
    splits = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    names = sorted({c.name for split in splits for c in split.iterdir() if c.is_dir()})
    if not names:
        raise UserError(f"{root} is no image folder: images must stand in {root}/SPLIT/CLASS/")
    classes = tuple(ClassEntry(i, name, name, name) for i, name in enumerate(names))
    for split in splits:
        _require_plain_name(split.name)
    found = {split.name: _folder_split(split, classes) for split in splits}
    return RealSource(root.resolve().name, "unknown", classes, found)


def _folder_split(folder: Path, classes: Sequence[ClassEntry]) -> FolderSplit:
    label = {c.wnid: c.label for c in classes}
    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return FolderSplit(files, [label[p.parent.name] for p in files])


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set that `datasets` loads; the bytes are not decoded."""

    dataset: Any
    image: str
    label_column: str

    @cached_property
    def labels(self) -> Sequence[int]:
        return list(self.dataset[self.label_column])

    def key(self, i: int) -> str:
        return f"{i:06d}"

    def version(self, i: int) -> str:  # noqa: ARG002 - it covers the whole split
        return str(self.dataset._fingerprint)

    def read(self, i: int) -> bytes:
        image = self.dataset[i][self.image]
        if image is None or not (image["bytes"] or image["path"]):
            raise UserError("is null")
        return image["bytes"] or Path(image["path"]).read_bytes()  # type: ignore[no-any-return]


def _hub(path: str, name: str) -> RealSource:
    from datasets import ClassLabel, load_dataset
    from datasets import Image as ImageFeature

    try:
        dataset = load_dataset(path)
    except (OSError, ValueError) as error:  # what `datasets` raises for missing data, no network
        hint = "apt-get install dataset-fashion-mnist, or " if name == "fashion-mnist" else ""
        raise UserError(
            f"real data {path!r} is not at hand ({str(error).splitlines()[0]}): {hint}"
            "name a folder SPLIT/CLASS/image or a data set that load_dataset finds"
        ) from None
    features = next(iter(dataset.values())).features
    image = next((k for k, f in features.items() if isinstance(f, ImageFeature)), None)
    label = next((k for k, f in features.items() if isinstance(f, ClassLabel)), None)
    if image is None or label is None:
        raise UserError(f"data set {path} has no image and ClassLabel column: {list(features)}")
    names = features[label].names
    builtin = load_classes("fashion-mnist") if name == "fashion-mnist" else None
    classes = builtin or tuple(ClassEntry(i, n, n, n) for i, n in enumerate(names))
    splits = {}
    for split, data in dataset.items():
        _require_plain_name(split)
        if min(data[label], default=0) >= 0:  # a split without labels (-1) is no use: left out
            undecoded = data.cast_column(image, ImageFeature(decode=False))
            splits[split] = HubSplit(undecoded, image, label)
    license_name = next(iter(dataset.values())).info.license or "unknown"
    revision = _revision(next(iter(dataset.values())))
    return RealSource(name, license_name, classes, splits, revision)


def file_version(path: Path) -> str:
    """Size, time of the last change and permissions; what is wrong where there is no such file.

    tar and rsync keep them, so that a copy on another machine counts as the same.
    """
    try:
        status = path.stat()
    except OSError as error:
        return str(error.strerror)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_mode:o}"


def _revision(dataset: Any) -> str:
    """The commit on the Hub that a split's files came from, else the split's fingerprint."""
    addresses = " ".join(dataset.info.download_checksums or ())
    commit = re.search(r"@([0-9a-f]{40})/", addresses)
    return commit.group(1) if commit else str(dataset._fingerprint)


def _require_plain_name(split: str) -> None:
    """A release's files are SPLIT-*.parquet, so a split's name holds no hyphen."""
    if not re.fullmatch(r"\w+", split):
        raise UserError(
            f"split {split!r}: its name may hold letters, digits and _ alone; rename it"
        )
