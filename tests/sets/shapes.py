"""Six classes of simple patterns as small releases, and a recipe that learns them in a second."""

import io
import json
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from classifiers.recipes.recipe import ClassifierRecipe
from release.classes.class_list import ClassEntry
from release.files.commit import sha256_file
from release.layout.image_sets import LabelledImages
from release.layout.manifest import Manifest, ShardRecord, read_manifest
from release.layout.parquet import image_features, table_schema, write_table

SIZE = 16
NAMES = ("left", "right", "top", "bottom", "middle", "checks")
CLASSES = tuple(ClassEntry(i, f"s{i}", name, name) for i, name in enumerate(NAMES))
RECIPE = ClassifierRecipe(
    name="tiny",
    description="for tests",
    model="test_resnet",
    model_args={"channels": (16, 16, 16, 16), "stem_width": 8},
    stem_pool=False,
    resolution=SIZE,
    channels=1,
    mean=(0.5,),
    std=(0.25,),
    epochs=8,
    batch=32,
    optimizer="adamw",
    learning_rate=1e-2,
    weight_decay=0.01,
    warmup=0.1,
)


def pattern(label: int) -> np.ndarray:
    image = np.zeros((SIZE, SIZE))
    half = SIZE // 2
    if label < 4:
        image[[np.s_[:, :half], np.s_[:, half:], np.s_[:half], np.s_[half:]][label]] = 1
    elif label == 4:
        image[4:12, 4:12] = 1
    else:
        image[::2, ::2] = 1
    return image


def make_images(per_class: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    labels = np.arange(per_class * len(NAMES)) % len(NAMES)
    pixels = np.stack([pattern(c) for c in labels]) * 120 + 60
    pixels = pixels + rng.normal(0, 40, pixels.shape)
    return LabelledImages(
        images=np.repeat(pixels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3),
        labels=labels,
        image_ids=tuple(f"i{i:05d}" for i in range(len(labels))),
        class_ids=tuple(c.wnid for c in CLASSES),
        class_names=NAMES,
    )


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_release(
    folder: Path,
    splits: dict[str, LabelledImages],
    kind: str = "real",
    dataset: str = "shapes",
    classes: tuple[ClassEntry, ...] = CLASSES,
    encoded: dict[str, list[bytes]] | None = None,
    configs: tuple[str, ...] = (str(SIZE),),
) -> Path:
    """A release as build-dataset lays it out; of a real one, every fifth row is tuning."""
    shards = []
    for config, (split, data) in product(configs, splits.items()):
        columns = {
            "image": (encoded or {}).get(split) or [png(image) for image in data.images],
            "label": data.labels.tolist(),
            "image_id": list(data.image_ids),
        }
        types = {"image_id": "string"}
        if kind == "real":
            columns["tuning"] = [split == "train" and i % 5 == 0 for i in range(len(data))]
            types["tuning"] = "bool"
        schema = table_schema(image_features(classes, types), classes)
        path = folder / config / f"{split}-00000000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_table(schema, columns))
        shards.append(
            ShardRecord(
                path=str(path.relative_to(folder)),
                rows=len(data),
                bytes=path.stat().st_size,
                sha256=sha256_file(path),
                fingerprint="f",
                per_class=dict(Counter(classes[label].wnid for label in data.labels)),
            )
        )
    Manifest(
        name=folder.name,
        kind=kind,
        dataset=dataset,
        regime="B" if kind == "synthetic" else None,
        license="mit",
        classes=classes,
        origin={},
        shards=tuple(shards),
    ).write(folder)
    return folder


def relist(folder: Path) -> None:
    """Have the manifest list the files as they are now, their counts as before."""
    manifest = read_manifest(folder)
    shards = (replace(s, sha256=sha256_file(folder / s.path)) for s in manifest.shards)
    replace(manifest, shards=tuple(shards)).write(folder)


def encode_table(schema: pa.Schema, columns: dict[str, list]) -> bytes:
    """A Parquet file as the builder writes it."""
    sink = pa.BufferOutputStream()
    write_table(sink, schema, columns)
    return sink.getvalue().to_pybytes()


def changed(**settings: object) -> ClassifierRecipe:
    return ClassifierRecipe.model_validate(RECIPE.model_dump() | settings)


def recipe_toml(recipe: ClassifierRecipe) -> str:
    """The recipe as its author would write it."""
    tables = recipe.model_dump(mode="json", exclude_defaults=True)
    lines = [f"{k} = {json.dumps(v)}" for k, v in tables.items() if not isinstance(v, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines)
