"""Small pictures as files and as tables."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage


def picture(seed: int = 0) -> bytes:
    """A small JPEG, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    """With the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def table(
    labels: Sequence[int | None],
    names: Sequence[str] = ("cat", "dog"),
    column: str = "label",
    seeds: Sequence[int] | None = None,
) -> Dataset:
    """A picture for each label, of the seeds 0, 1, 2 … if none are given."""
    rows = [{"bytes": picture(i), "path": None} for i in seeds or range(len(labels))]
    features = Features({"image": Image(), column: ClassLabel(names=list(names))})
    return Dataset.from_dict({"image": rows, column: list(labels)}, features=features)


def save_parquet(root: Path, **splits: Dataset) -> Path:
    """As a data set of the Hub lies in a folder: data/SPLIT-00000-of-00001.parquet."""
    (root / "data").mkdir(parents=True)
    for name, data in splits.items():
        data.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root
