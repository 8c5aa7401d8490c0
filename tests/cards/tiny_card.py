"""A release of three garments with results, as a card sees it."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from release.classes.class_list import ClassEntry
from release.files.commit import sha256_bytes
from release.images.encoding import encode_image
from release.layout.manifest import ShardRecord, read_manifest
from release.layout.parquet import image_features, table_schema
from release.results.result import Result
from tests.sets.shapes import encode_table

CLASSES = tuple(
    ClassEntry(i, wnid, name, name.lower())
    for i, (wnid, name) in enumerate([("bag", "Bag"), ("boot", "Ankle boot"), ("coat", "Coat")])
)


COLUMNS = {"class_id": "string", "image_id": "string", "index": "int32"}


DAY = date(2026, 1, 2)


MODEL = {"name": "Tiny", "license": "made-up-1.0", "images": "Use them.", "source": "a test"}


ORIGIN: dict[str, Any] = {
    "recipe": {
        "description": "Three garments",
        "seed": 7,
        "license_note": "For tests only.",
        "stage": [{"resolution": 16, "sampler_source": "a sweep of one", "model": MODEL}],
    },
    "stages": [
        {
            "resolution": 16,
            "generator": "pixel-unet",
            "checkpoint": "builtin:tiny-16",
            "checkpoint_sha256": "c" * 64,
            "sampler": {"method": "dpm-solver++", "steps": 12},
            "encoding": "png",
            "fingerprint": "f" * 64,
        }
    ],
    "requests": [{"classes": ["bag", "boot", "coat"], "per_class": 4}],
    "environments": [{"device": "cpu test", "versions": {"torch": "2.15.0", "numpy": "2.4.6"}}],
}


def a_picture(label: int, index: int) -> np.ndarray:
    """uint8[16,16,3]: label and index can be read off the first pixel."""
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[0, 0] = (50 + label, index, 0)
    return picture


def write_shard(release: Path, start: int, stop: int, last_first: bool) -> ShardRecord:
    indices = list(range(start, stop))
    cells = [(c, i) for i in (reversed(indices) if last_first else indices) for c in CLASSES]
    columns: dict[str, list[Any]] = {
        "image": [encode_image(a_picture(c.label, i), "png", synthetic=True) for c, i in cells],
        "label": [c.label for c, _ in cells],
        "class_id": [c.wnid for c, _ in cells],
        "image_id": [f"{c.wnid}-{i:06d}" for c, i in cells],
        "index": [i for _, i in cells],
    }
    content = encode_table(table_schema(image_features(CLASSES, COLUMNS), CLASSES), columns)
    path = f"16/train-{stop:06d}.parquet"
    (release / path).parent.mkdir(parents=True, exist_ok=True)
    (release / path).write_bytes(content)
    counts = {c.wnid: stop - start for c in CLASSES}
    return ShardRecord(path, len(cells), len(content), sha256_bytes(content), "f" * 64, counts)


def a_result(release: Path, top1: float, seed: int = 0, **source: Any) -> Result:
    manifest = read_manifest(release)
    train = {
        "name": manifest.name,
        "content_sha256": manifest.content_sha256,
        "config": "16",
        "split": "train",
        "images": 18,
        "kind": "synthetic",
        "regime": "B",
        **source,
    }
    return Result(
        kind="classifier",
        dataset="fashion-mnist",
        subject={"train": [train], "model": "resnet10t", "recipe": "small"},
        protocol={"epochs": 3},
        reference={"name": "real", "n": 3000},
        values={
            "top1": {"value": top1, "n": 3000, "interval": [top1 - 0.02, top1 + 0.02]},
            "per_class": [
                {"wnid": c.wnid, "name": c.name, "n": 1000, "top1": top1 - 0.1 * c.label}
                for c in CLASSES
            ],
        },
        seeds={"classifier": seed},
    )


def a_score(release: Path, **kid: Any) -> Result:
    """With the KID within each class, the first class's the largest."""
    source = a_result(release, 0.5).subject["train"][0]
    rows = [
        {"wnid": c.wnid, "name": c.name, "n": 6, "value": 0.3 - 0.1 * c.label, "interval": None}
        for c in CLASSES
    ]
    entry = {"value": 0.2, "n": 18, "reference_n": 3000, "per_class": rows, **kid}
    return Result(
        kind="scores",
        dataset="fashion-mnist",
        subject=source,
        protocol={"features": {"extractor": "tiny"}},
        reference={"name": "real"},
        values={"class_kid_test": entry},
    )
