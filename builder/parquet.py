"""The files of a release: schema with `datasets` features, Parquet or Arrow, written in one go."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from generation.classes import ClassEntry
from generation.shard_files import ShardFormat

ROW_GROUP_BYTES = 64 << 20  # the Hub's viewer wants row groups under 100 MB
IMAGE = {"bytes": pa.binary(), "path": pa.string()}  # as `datasets` lays an image out
BATCH_ROWS = 100  # of an Arrow record batch: as `datasets` writes images


def image_features(
    classes: Sequence[ClassEntry], columns: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Features of a release as `datasets` writes them: image, label, then `columns` (name: dtype).

    Written out, since importing `datasets` takes a worker longer than a small shard does.
    """
    return {
        "image": {"_type": "Image"},
        "label": {"names": [c.name for c in classes], "_type": "ClassLabel"},
        **{name: {"dtype": dtype, "_type": "Value"} for name, dtype in columns.items()},
    }


def table_schema(features: dict[str, dict[str, Any]], classes: Sequence[ClassEntry]) -> pa.Schema:
    """The Arrow schema, with the class list beside the features that `datasets` reads."""
    entries = json.dumps([asdict(c) for c in classes], ensure_ascii=False)
    fields = [(name, _arrow_type(feature)) for name, feature in features.items()]
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "classes": entries}
    return pa.schema(fields, metadata=metadata)


def _arrow_type(feature: dict[str, Any]) -> pa.DataType:
    if feature["_type"] == "Image":
        return pa.struct(list(IMAGE.items()))
    if feature["_type"] == "ClassLabel":
        return pa.int64()
    return pa.type_for_alias(feature["dtype"])


def encode_table(
    schema: pa.Schema, columns: dict[str, list[Any]], file_format: ShardFormat = "parquet"
) -> memoryview:
    """The file's bytes; `columns["image"]` holds encoded images. Same rows, same bytes."""
    data = pa.array(columns["image"], pa.binary())
    images = pa.StructArray.from_arrays([data, pa.nulls(len(data), pa.string())], list(IMAGE))
    table = pa.table({**columns, "image": images}, schema=schema)
    if file_format == "arrow":
        return _arrow_bytes(table)
    return _parquet_bytes(table, sum(len(image) for image in columns["image"]))


def _arrow_bytes(table: pa.Table) -> memoryview:
    """An IPC stream, not compressed: what is mapped into memory is read as it lies there."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=BATCH_ROWS)
    return memoryview(sink.getvalue())  # a shard's bytes are copied often enough


def _parquet_bytes(table: pa.Table, size: int) -> memoryview:
    """size: bytes of all images."""
    groups = max(1, -(-size // ROW_GROUP_BYTES))
    others = [name for name in table.schema.names if name != "image"]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression={"image.bytes": "none", "image.path": "none"} | dict.fromkeys(others, "zstd"),
        use_dictionary=others,
        write_statistics=others,  # the least image, byte by byte, tells nothing
        write_page_index=True,
        store_schema=True,
    ) as writer:
        writer.write_table(table, row_group_size=max(1, -(-table.num_rows // groups)))
    return memoryview(sink.getvalue())  # a shard's bytes are copied often enough
