"""Reading the files of a release, in a folder or behind a URL, whatever their format.

Parquet files are CONFIG/SPLIT-NAME.parquet; Arrow IPC streams CONFIG/SPLIT/data-NAME.arrow, where
`datasets.load_from_disk` maps them into memory.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from release.errors import UserError
from release.files.commit import sha256_file, sha256_text
from release.files.formats import ShardFormat
from release.files.names import plain_path
from release.files.storage import ReleasePath, reaching

FORMAT = 1  # part of every fingerprint: raise it when the bytes of a shard change
ORIGINAL = "original"  # the configuration of real images as they came
MOMENTS = "moments"  # the column of latents, in the place of images; release/layout/latents.py
FORMAT_NAMES: dict[ShardFormat, str] = {"parquet": "Parquet", "arrow": "Arrow IPC"}
FileState = tuple[int, ...] | str
# Where a folder would hold too many: how `release publish` lays out a release of very many shards.
SUBFOLDER = re.compile(r"(?P<config>[^/]+)/part-[0-9a-f]{2}/(?P<file>[^/]+\.parquet)")
DEPTH: dict[ShardFormat, int] = {"parquet": 1, "arrow": 2}  # folders above a file in its release


def shard_name(config: str, split: str, name: str, file_format: ShardFormat) -> str:
    """Where a shard stands within its release; `*` as its name gives the pattern of all."""
    if file_format == "arrow":
        return f"{config}/{split}/data-{name}.arrow"
    return f"{config}/{split}-{name}.parquet"


def shard_format(name: str) -> ShardFormat:
    """By the name's ending."""
    return "arrow" if name.endswith(".arrow") else "parquet"


def is_shard(name: str) -> bool:
    """Whether a path within a release is that of a shard, in a sub-folder or not."""
    flat = flat_path(name)
    return name.endswith((".parquet", ".arrow")) and flat.count("/") == DEPTH[shard_format(name)]


def flat_path(name: str) -> str:
    """A shard's path without its sub-folder: the one that it is planned and known by."""
    return SUBFOLDER.sub(r"\g<config>/\g<file>", name) if "/part-" in name else name


def folded_path(name: str) -> str:
    """CONFIG/part-XX/FILE, XX of the file's name alone: a folder for one in 256 Parquet shards."""
    config, file = name.split("/")
    return f"{config}/part-{sha256_text(file)[:2]}/{file}"


def folded_pattern(pattern: str) -> str:
    """The pattern of all shards of a split, as shard_name gives it, for those in sub-folders."""
    config, file = pattern.split("/")
    return f"{config}/part-*/{file}"


def plain_shard_path(name: str) -> str:
    """`name`, as a manifest states it, if it is a shard's path within; ValueError if it is not."""
    named = "-" in PurePosixPath(plain_path(name)).name and is_shard(name) and shard_split(name)
    if not named:
        raise ValueError(
            f"{name!r} is no shard's path, such as CONFIG/SPLIT-NAME.parquet or "
            "CONFIG/SPLIT/data-NAME.arrow"
        )
    return name


def shard_split(name: str) -> str:
    """The split of the shard at `name`."""
    return flat_path(name).split("/")[1].split("-", maxsplit=1)[0]


def require_unchanged(path: ReleasePath, sha256: str) -> None:
    """UserError unless the file is the one its manifest lists; to be called before it is read.

    sha256: hex digest that the manifest states. The whole file is hashed, about 1 GB/s, the first
    time that this process asks, and again if its size, times or identity have changed since.
    """
    try:
        found = _sha256_in_state(path, file_state(path))
    except FileNotFoundError:
        raise UserError(f"{path} is not there, though its manifest lists it") from None
    if found != sha256:
        raise changed_file(path)


def changed_file(path: ReleasePath) -> UserError:
    """The error for a file whose bytes are others than the manifest says."""
    return UserError(
        f"{path} is not the file that its manifest lists: its SHA-256 is another; "
        "`release verify` names all that was changed"
    )


@lru_cache(maxsize=1 << 16)
def _sha256_in_state(path: ReleasePath, state: FileState) -> str:  # noqa: ARG001
    return sha256_file(path)


def file_state(path: ReleasePath) -> FileState:
    """Differs once the file is another; ctime, unlike mtime, cannot be set back."""
    with reaching(path):
        if not isinstance(path, Path):
            return str(path.fs.ukey(path.path))
        facts = path.stat()
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


@contextmanager
def readable(path: ReleasePath) -> Iterator[None]:
    """Turn what Arrow raises for a file that is none of its own into a UserError of one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of Arrow
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as {_format_name(path)}: {reason}") from None


def _format_name(path: ReleasePath) -> str:
    return FORMAT_NAMES[shard_format(path.name)]


def leading_split(splits: Sequence[str]) -> str:
    """The split to show where one is shown: train, else the first."""
    return "train" if "train" in splits else splits[0]


def read_shard(path: ReleasePath, columns: Sequence[str] | None = None) -> pa.Table:
    """The file's rows, only `columns` of them if given."""
    with reaching(path):
        if shard_format(path.name) == "parquet":
            return pq.read_table(**_source(path), columns=columns and list(columns))
        with _open_stream(path) as reader:
            table = reader.read_all()
        return table.select(list(columns)) if columns else table


def shard_schema(path: ReleasePath) -> pa.Schema:
    """The file's schema with the metadata that was written."""
    with reaching(path):
        if shard_format(path.name) == "parquet":
            with pq.ParquetFile(**_source(path)) as file:
                return file.schema_arrow
        with _open_stream(path) as reader:
            return reader.schema


def iterate_shard(path: ReleasePath, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows, so that a large file need not fit in memory."""
    with reaching(path):
        if shard_format(path.name) == "parquet":
            with pq.ParquetFile(**_source(path)) as file:
                for group in range(file.num_row_groups):  # all at once would be read ahead as one
                    yield from file.iter_batches(rows, row_groups=[group], columns=list(columns))
            return
        with _open_stream(path) as reader:
            for batch in reader:
                chosen = batch.select(list(columns))
                yield from (chosen.slice(i, rows) for i in range(0, batch.num_rows, rows))


@contextmanager
def _open_stream(path: ReleasePath) -> Iterator[pa.RecordBatchReader]:
    """An Arrow IPC stream, mapped into memory if it lies in a folder."""
    with _stream_source(path) as source, pa.ipc.open_stream(source) as reader:
        yield reader


def _stream_source(path: ReleasePath) -> Any:
    if isinstance(path, Path):
        return pa.memory_map(str(path))
    return path.fs.open(path.path, "rb")


def _source(path: ReleasePath) -> dict[str, Any]:
    if isinstance(path, Path):
        return {"source": path}
    return {"source": path.path, "filesystem": path.fs}
