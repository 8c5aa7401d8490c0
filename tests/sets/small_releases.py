"""Releases of a few random images, written without the builder."""

import hashlib
import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from release.classes.class_list import ClassEntry
from release.files.commit import sha256_file
from release.layout.manifest import Manifest, ShardRecord

CLASSES = tuple(ClassEntry(i, f"c{i}", f"class {i}", f"class {i}") for i in range(4))


def write_release(
    folder: Path,
    splits: dict[str, list[np.ndarray]],
    kind: Literal["real", "synthetic"] = "synthetic",
    dataset: str = "shapes",
    *,
    by_content: bool = False,
) -> Path:
    """Each split a list of shards, each shard uint8[N,H,W,3]; labels count 0 1 2 3 0 1 …

    by_content: an image's id and label follow from its pixels, in whatever shard it stands.
    """
    shards = []
    for split, parts in splits.items():
        for number, images in enumerate(parts):
            path = folder / f"{images.shape[1]}/{split}-{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            labels = [i % len(CLASSES) for i in range(len(images))]
            names = [f"{split}-{number}-{i}" for i in range(len(images))]
            if by_content:
                names = [f"{split}-{hashlib.sha256(i.tobytes()).hexdigest()}" for i in images]
                labels = [int(name[-1], 16) % len(CLASSES) for name in names]
            pq.write_table(_table(images, labels, names, kind), path)
            shards.append(_record(folder, path, labels))
    manifest = Manifest(
        name=folder.name,
        kind=kind,
        dataset=dataset,
        regime=None if kind == "real" else "B",
        license="cc0-1.0",
        classes=CLASSES,
        origin={},
        shards=tuple(shards),
    )
    manifest.write(folder)
    return folder


def random_images(seed: int, n: int, size: int = 16) -> np.ndarray:
    """uint8[n,size,size,3]: blobs of random colour, so that classes of a network vary."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def _table(images: np.ndarray, labels: list[int], names: list[str], kind: str) -> pa.Table:
    columns = {
        "image": [{"bytes": _png(image), "path": None} for image in images],
        "label": pa.array(labels, pa.int64()),
        "class_id": [CLASSES[label].wnid for label in labels],
        "image_id": names,
    }
    if kind == "real":
        columns["tuning"] = [i % 10 == 0 for i in range(len(images))]
    classes = json.dumps([asdict(c) for c in CLASSES])
    return pa.table(columns).replace_schema_metadata({"classes": classes})


def _png(image: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "png")
    return sink.getvalue()


def _record(folder: Path, path: Path, labels: list[int]) -> ShardRecord:
    counts = Counter(CLASSES[label].wnid for label in labels)
    return ShardRecord(
        path=str(path.relative_to(folder)),
        rows=len(labels),
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        fingerprint="",
        per_class=dict(counts),
    )
