"""Reading the files of a release, in a folder or behind a URL, whatever their format."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from generation.storage import ReleasePath, reaching

SUFFIX = ".parquet"


def is_shard(name: str) -> bool:
    """Whether a path within a release is that of a shard."""
    return name.endswith(SUFFIX) and name.count("/") == 1


def shard_split(name: str) -> str:
    """The split of the shard at CONFIG/SPLIT-*.parquet."""
    return name.split("/")[1].split("-", maxsplit=1)[0]


def read_shard(path: ReleasePath, columns: Sequence[str] | None = None) -> pa.Table:
    """The file's rows, only `columns` of them if given."""
    with reaching(path):
        return pq.read_table(**_source(path), columns=columns and list(columns))


def shard_schema(path: ReleasePath) -> pa.Schema:
    """The file's schema with the metadata that was written."""
    with reaching(path), pq.ParquetFile(**_source(path)) as file:
        return file.schema_arrow


def iterate_shard(path: ReleasePath, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows, so that a large file need not fit in memory."""
    with reaching(path), pq.ParquetFile(**_source(path)) as file:
        yield from file.iter_batches(rows, columns=list(columns))


def _source(path: ReleasePath) -> dict[str, Any]:
    if isinstance(path, Path):
        return {"source": path}
    return {"source": path.path, "filesystem": path.fs}
