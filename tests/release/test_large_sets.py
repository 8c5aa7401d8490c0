"""Image sets of more bytes than Arrow holds in one array."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from release.layout.image_sets import load_images

PADDING = 64 << 20  # bytes after the image, which no decoder reads
FILES = 33  # so that the padding alone is more than 2 GiB


def test_a_split_of_more_than_two_gib_of_encoded_images_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files share one buffer in memory: what counts is how long the arrays say they are."""
    image = io.BytesIO()
    Image.fromarray(np.full((2, 2, 3), 77, np.uint8)).save(image, "PNG")
    encoded = pa.array([image.getvalue() + bytes(PADDING)], pa.binary())
    images = pa.StructArray.from_arrays([encoded], ["bytes"])

    def tables(_: Path, __: str, ___: str, columns: list[str]) -> Iterator[pa.Table]:
        for number in reversed(range(FILES)):
            row = {"image": images, "label": pa.array([number % 2]), "image_id": [f"{number:03d}"]}
            yield pa.table({name: row[name] for name in columns})

    classes = json.dumps([{"wnid": "a", "name": "A"}, {"wnid": "b", "name": "B"}])
    schema = pa.schema([], metadata={"classes": classes})
    monkeypatch.setattr("release.layout.image_sets.iterate_tables", tables)
    monkeypatch.setattr("release.layout.image_sets.split_files", lambda *_: [tmp_path])
    monkeypatch.setattr("release.layout.image_sets.shard_schema", lambda _: schema)
    found = load_images(tmp_path, "2", "train")
    assert found.image_ids == tuple(f"{number:03d}" for number in range(FILES))
    assert found.labels.tolist() == [number % 2 for number in range(FILES)]
    assert (found.images == 77).all()
