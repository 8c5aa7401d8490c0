"""The files of a release: schema with `datasets` features, Parquet or Arrow, written in one go."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from release.classes.class_list import ClassEntry
from release.files.formats import ShardFormat

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


def yaml_features(schema: pa.Schema) -> list[dict[str, Any]]:
    """The features of a file as `datasets` states them in a README's YAML.

    Those of table_schema are written out, since importing `datasets` takes most of a second at the
    end of each build; it is asked about others.
    """
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        if all(_arrow_type(features[field.name]) == field.type for field in schema):
            return [{"name": name, "dtype": _yaml_type(features[name])} for name in schema.names]
    except (TypeError, KeyError, ValueError):  # somebody else has written it
        pass
    from datasets import Features

    return list(Features.from_arrow_schema(schema)._to_yaml_list())


def _yaml_type(feature: dict[str, Any]) -> str | dict[str, Any]:
    if feature["_type"] == "Image":
        return "image"
    if feature["_type"] == "ClassLabel":
        names = {str(label): name for label, name in enumerate(feature["names"])}
        return {"class_label": {"names": names}}
    return str(feature["dtype"])


def _arrow_type(feature: dict[str, Any]) -> pa.DataType:
    if feature["_type"] == "Image":
        return pa.struct(list(IMAGE.items()))
    if feature["_type"] == "ClassLabel":
        return pa.int64()
    return pa.type_for_alias(feature["dtype"])


def write_table(
    sink: pa.NativeFile,
    schema: pa.Schema,
    columns: dict[str, list[Any]],
    file_format: ShardFormat = "parquet",
) -> None:
    """Write a file; `columns["image"]` holds encoded images. Same rows, same bytes."""
    images = columns["image"]
    if file_format == "arrow":
        # not compressed: what is mapped into memory is read as it lies there
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(_table(schema, columns), max_chunksize=BATCH_ROWS)
        return
    groups = max(1, -(-sum(map(len, images)) // ROW_GROUP_BYTES))
    rows = max(1, -(-len(images) // groups))
    starts = range(0, len(images), rows)
    with group_writer(sink, schema) as write:
        for start in starts:
            write({name: values[start : start + rows] for name, values in columns.items()})


@contextmanager
def group_writer(
    sink: pa.NativeFile, schema: pa.Schema
) -> Iterator[Callable[[dict[str, list[Any]]], None]]:
    """Write a Parquet file group by group: the columns of each are in memory until it is written.

    What is yielded takes the columns of a row group, and empties them.
    """
    with _parquet_writer(sink, schema) as writer:

        def write(group: dict[str, list[Any]]) -> None:
            writer.write_table(_table(schema, group), row_group_size=len(group["image"]))
            group.clear()

        yield write


def _table(schema: pa.Schema, columns: dict[str, list[Any]]) -> pa.Table:
    images = encoded_images(pa.array(columns["image"], pa.binary()))
    return pa.table({**columns, "image": images}, schema=schema)


def encoded_images(data: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Encoded bytes as a column of images; several arrays are what more than 2 GiB come in."""
    chunks = data.chunks if isinstance(data, pa.ChunkedArray) else [data]
    return pa.chunked_array(
        pa.StructArray.from_arrays([chunk, pa.nulls(len(chunk), pa.string())], list(IMAGE))
        for chunk in chunks
    )


def _parquet_writer(sink: pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    others = [name for name in schema.names if name != "image"]
    return pq.ParquetWriter(
        sink,
        schema,
        compression={"image.bytes": "none", "image.path": "none"} | dict.fromkeys(others, "zstd"),
        use_dictionary=others,
        write_statistics=others,  # the least image, byte by byte, tells nothing
        write_page_index=True,
        store_schema=True,
    )
