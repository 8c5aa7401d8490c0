"""The index of a split: where the bytes of each image stand, so that none has to be looked for.

index/CONFIG/SPLIT-HASH.feather, an Arrow IPC file of one batch that is not compressed: whoever
maps it into memory reads what he asks for alone, and shares it with all others on his machine. Its
rows are the split's images in the order of their ids:

image_id    large_string
label       int64
tuning      bool, where the release marks such rows
file        dictionary of the shards' paths within the release
offset      int64, of the image's bytes within that file
size        int32
sha256      32 bytes, of the image's bytes
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from release.errors import UserError
from release.files.commit import Content, canonical_json, sha256_text
from release.files.formats import ShardFormat
from release.files.storage import ReleasePath, read_bytes
from release.layout.image_places import image_places

FOLDER = "index"
OWN_COLUMNS = ("image_id", "label")


def index_name(config: str, split: str, files: Sequence[tuple[str, str]]) -> str:
    """Where the index of these files stands; files: path and SHA-256 of each.

    Another name for other files: one that is being replaced stays what its manifest says.
    """
    content = sha256_text(canonical_json(sorted([list(file) for file in files])))
    return f"{FOLDER}/{config}/{split}-{content[:10]}.feather"


def is_index(name: str) -> bool:
    """Whether a path within a release is that of an index."""
    return name.startswith(f"{FOLDER}/")


def shard_index(
    content: Content, file_format: ShardFormat, hashes: Sequence[bytes] | None = None
) -> pa.Table:
    """The rows of one shard in their order, all columns but `file`. UserError as image_places.

    hashes: SHA-256 of each image, where its writer knows them: they take half of the time.
    """
    offsets, sizes = image_places(content, file_format)
    if hashes is None:
        hashes = _image_hashes(content, offsets, sizes)
    found = _own_columns(content, file_format)
    columns = {
        "image_id": found["image_id"].cast(pa.large_string()),
        "label": found["label"],
        **({"tuning": found["tuning"]} if "tuning" in found.column_names else {}),
        "offset": pa.array(offsets),
        "size": pa.array(sizes, pa.int32()),
        "sha256": pa.array(hashes, pa.binary(32)),
    }
    return pa.table(columns).combine_chunks()


def _image_hashes(content: Content, offsets: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    view = memoryview(content)
    return [
        hashlib.sha256(view[start : start + size]).digest()
        for start, size in zip(offsets.tolist(), sizes.tolist(), strict=True)
    ]


def _own_columns(content: Content, file_format: ShardFormat) -> pa.Table:
    source = pa.BufferReader(pa.py_buffer(content))
    if file_format == "arrow":
        with pa.ipc.open_stream(source) as reader:
            names = [n for n in (*OWN_COLUMNS, "tuning") if n in reader.schema.names]
            return pa.Table.from_batches([b.select(names) for b in reader], _only(reader, names))
    with pq.ParquetFile(source) as file:
        names = [n for n in (*OWN_COLUMNS, "tuning") if n in file.schema_arrow.names]
        return file.read(names)


def _only(reader: pa.RecordBatchReader, names: Sequence[str]) -> pa.Schema:
    return pa.schema([reader.schema.field(name) for name in names])


def as_text(rows: pa.Table) -> str:
    """A table in a line of text, for a JSON file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(rows)
    return base64.b64encode(sink.getvalue()).decode()


def from_text(text: str) -> pa.Table:
    """What as_text wrote; ValueError (ArrowInvalid is one) for anything else."""
    with pa.ipc.open_stream(base64.b64decode(text, validate=True)) as reader:
        return reader.read_all()


def joined_index(parts: list[pa.Table], names: Sequence[str]) -> pa.Table:
    """The index of a split of its shards' rows, in the order of names; one part a name.

    Empties `parts`: column by column what they held goes as what it becomes is made, so that
    memory holds little more than the index once.
    """
    import pyarrow.compute as pc  # not where commands start: it takes a while

    numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    table = pa.concat_tables(parts)
    parts.clear()
    place = table.column_names.index("offset")
    order = pc.sort_indices(table, [("image_id", "ascending")])
    joined = {}
    for name in list(table.column_names):
        column = table[name]
        table = table.drop_columns([name])
        whole = column.combine_chunks()
        del column
        joined[name] = whole.take(order)
        del whole
    index = pa.table(joined)
    return index.add_column(place, "file", file_column(numbers[order.to_numpy()], names))


@dataclass(frozen=True)
class RowsByFile:
    """The rows of an index as they stand in each file. order: of `table`'s rows, file by file;
    stretches: which part of it is a file's."""

    table: pa.Table
    order: np.ndarray
    stretches: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, index: pa.Table, columns: Sequence[str]) -> "RowsByFile":
        """columns: those that rows() is to give."""
        file = index["file"].combine_chunks()
        numbers = file.indices.to_numpy()
        order = np.lexsort((index["offset"].to_numpy(), numbers))
        ends = np.cumsum(np.bincount(numbers, minlength=len(file.dictionary))).tolist()
        stretches = zip([0, *ends[:-1]], ends, strict=True)
        by_file = dict(zip(file.dictionary.to_pylist(), stretches, strict=True))
        return cls(index.select(columns), order, by_file)

    def rows(self, file: str) -> pa.Table:
        """Of one file; none of one that the index does not name."""
        start, stop = self.stretches.get(file, (0, 0))
        return self.table.take(pa.array(self.order[start:stop]))


def file_column(numbers: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    """Of each image its file: int32[N] into `names`."""
    return pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(names, pa.string()))


def write_index(sink: pa.NativeFile, table: pa.Table) -> None:
    """As one batch, so that a mapped column is one array."""
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, len(table)))


def open_index(path: ReleasePath) -> pa.Table:
    """Its rows, mapped into memory where it lies in a folder. UserError if it is no index."""
    try:
        if isinstance(path, Path):
            source = pa.memory_map(str(path))
        else:
            source = pa.BufferReader(read_bytes(path))
        table = pa.ipc.open_file(source).read_all()
    except pa.ArrowException as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return table
