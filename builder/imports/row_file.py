"""A file of a release whose rows are written as they come: a row group at a time is in memory."""

import hashlib
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pyarrow as pa

from builder.cluster.worker import Job
from builder.shards.rejections import rejections_file
from builder.shards.stopping import raise_if_stopped
from release.layout.manifest import ShardRecord
from release.layout.parquet import ROW_GROUP_BYTES, group_writer
from release.layout.shard_commit import commit_written, forget_shard, shard_stream

Row = dict[str, Any]  # of a file; or, with a `reason`, what is written of an image that is left out


class RowFile:
    """The file of a job. What stood at its path is gone from the start; finish() puts the new one
    there, and it counts from commit() on."""

    def __init__(self, job: Job, schema: pa.Schema) -> None:
        self._job, self._schema = job, schema
        self._started = time.time()
        self._group: list[Row] = []
        self._bytes = 0
        self._class_ids: list[str] = []
        self._hashes: list[bytes] = []
        self._left_out: list[Row] = []
        self._open = ExitStack()

    def __enter__(self) -> "RowFile":
        forget_shard(self._job.release, self._job.path)
        self._stream = self._open.enter_context(shard_stream(self._job.release / self._job.path))
        self._write = self._open.enter_context(group_writer(self._stream.sink, self._schema))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish it; after an error nothing of it stays."""
        if error is None:
            self.finish()
        self._open.__exit__(kind, error, trace)

    def add(self, row: Row) -> None:
        """The next row, written when there is a group of them; or of an image that is left out."""
        raise_if_stopped()
        if "reason" in row:
            self._left_out.append(row)
            return
        self._group.append(row)
        self._class_ids.append(row["class_id"])
        self._hashes.append(_image_hash(row))
        self._bytes += len(row["image"])
        if self._bytes >= ROW_GROUP_BYTES:
            self._end_group()

    def finish(self) -> None:
        """Write what is left; the file is whole then. No harm if it is whole already."""
        if self._group:
            self._end_group()
        self._stream.hashes = self._hashes
        self._open.close()

    def commit(self, made_from: str) -> ShardRecord:
        """Say that the finished file counts, and what it was made from."""
        return commit_written(
            self._job.release,
            self._job.path,
            self._job.fingerprint,
            self._stream.written(),
            self._class_ids,
            self._started,
            rejections_file(self._left_out) if self._left_out else None,
            made_from,
        )

    def _end_group(self) -> None:
        group = self._group
        self._group, self._bytes = [], 0
        self._write({name: [row[name] for row in group] for name in group[0]})


def _image_hash(row: Row) -> bytes:
    """SHA-256 of the row's image; of an original it is there already."""
    if row["crop_rule"] == "none":
        return bytes.fromhex(row["original_sha256"])
    return hashlib.sha256(row["image"]).digest()
