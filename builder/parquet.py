"""The Parquet files of a release: schema with `datasets` features, written in one go."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from generation.classes import ClassEntry

if TYPE_CHECKING:
    from datasets import Features

ROW_GROUP_BYTES = 64 << 20  # the Hub's viewer wants row groups under 100 MB


def image_features(classes: Sequence[ClassEntry], columns: Mapping[str, str]) -> "Features":
    """Features of a release: image, label, then `columns` (name: dtype)."""
    from datasets import ClassLabel, Features, Image, Value

    return Features(
        {
            "image": Image(),
            "label": ClassLabel(names=[c.name for c in classes]),
            **{name: Value(dtype) for name, dtype in columns.items()},
        }
    )


def table_schema(features: "Features", classes: Sequence[ClassEntry]) -> pa.Schema:
    """The Arrow schema, with the class list beside the features that `datasets` reads."""
    schema = features.arrow_schema
    entries = json.dumps([asdict(c) for c in classes], ensure_ascii=False)
    return schema.with_metadata({**schema.metadata, b"classes": entries.encode()})


def encode_table(schema: pa.Schema, columns: dict[str, list[Any]]) -> bytes:
    """The Parquet file's bytes; `columns["image"]` holds encoded images. Same rows, same bytes."""
    images = [{"bytes": data, "path": None} for data in columns["image"]]
    table = pa.table({**columns, "image": images}, schema=schema)
    size = sum(len(data) for data in columns["image"])
    groups = max(1, -(-size // ROW_GROUP_BYTES))
    others = [name for name in schema.names if name != "image"]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression={"image.bytes": "none", "image.path": "none"} | dict.fromkeys(others, "zstd"),
        use_dictionary=others,
        write_page_index=True,
        store_schema=True,
    ) as writer:
        writer.write_table(table, row_group_size=max(1, -(-table.num_rows // groups)))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
