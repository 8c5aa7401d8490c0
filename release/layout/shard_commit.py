"""The commit protocol of a shard: Parquet file, rejections, sidecar, then marker.

A shard exists when its marker parses, carries the wanted fingerprint, and fits the file's size.
The marker holds nothing that differs from run to run; what does (host, time) is in the sidecar.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from release.environment import Environment, own_environment
from release.files.commit import (
    Content,
    canonical_json,
    delete_file,
    sha256_bytes,
    stream_atomically,
    write_atomically,
)
from release.files.storage import ReleasePath, file_size, list_files, read_bytes, read_files
from release.layout.image_index import as_text, shard_index
from release.layout.manifest import ShardRecord, parse_record
from release.layout.shard_files import FileState, file_state, flat_path, shard_format

if TYPE_CHECKING:
    import pyarrow as pa


PACKED_MARKERS = "markers.jsonl"  # in a copy whose shards stand in sub-folders: a marker a line


class PlannedShard(Protocol):
    """What a finished shard's marker must say.

    path: within the release. planned: its slots; those without a row must be accounted for.
    """

    @property
    def path(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def planned(self) -> int: ...


@dataclass(frozen=True)
class RejectedAttempts:
    """What a shard says of images it did not keep: a file, and counts by class id."""

    content: bytes
    rejected: dict[str, int]
    quarantined: dict[str, int]


@dataclass(frozen=True)
class WrittenShard:
    """A shard's file as it stands there; images: where each of its images does, see as_text."""

    bytes: int
    sha256: str
    images: str


def marker_path(release: ReleasePath, shard: str) -> ReleasePath:
    """Where the marker of `shard` (a path within the release) stands."""
    return release / marker_name(shard)


def marker_name(shard: str) -> str:
    """Where the marker of `shard` stands within the release."""
    return f"markers/{PurePosixPath(shard).with_suffix('.json')}"


def sidecar_name(shard: str) -> str:
    """Where the sidecar of `shard` stands within the release."""
    return f"sidecars/{PurePosixPath(shard).with_suffix('.json')}"


def committed_record(release: ReleasePath, shard: PlannedShard) -> ShardRecord | None:
    """The record of a finished shard; None if its marker is missing, foreign or does not fit."""
    try:
        record = _parse_marker(read_bytes(marker_path(release, shard.path)))
        names = _files_of(record) if record else []
        sizes = {name: file_size(release / name) for name in names}
    except FileNotFoundError:
        return None
    return record if record and _fits(record, shard, sizes) else None


def committed_records(
    release: ReleasePath, shards: Sequence[PlannedShard]
) -> dict[str, ShardRecord]:
    """The records of those of `shards` that are finished, by path; the release is listed once."""
    sizes = list_files(release)
    names = {marker_name(shard.path): shard for shard in shards}
    found = {}
    for name, content in read_files(release, [name for name in names if name in sizes]).items():
        record, shard = _parse_marker(content), names[name]
        if record and _fits(record, shard, sizes):
            found[shard.path] = record
    return found


def _parse_marker(content: bytes) -> ShardRecord | None:
    try:
        return parse_record(json.loads(content)["shard"])
    except (ValueError, TypeError, KeyError, RecursionError):  # no UTF-8 is a ValueError, too
        return None


def _files_of(record: ShardRecord) -> list[str]:
    return [record.path, *([record.rejections_path] if record.rejections_sha256 else [])]


def _fits(record: ShardRecord, shard: PlannedShard, sizes: Mapping[str, int]) -> bool:
    """Whether `record` is that of `shard` and its files have the bytes it says."""
    found = (record.path, record.fingerprint, record.planned)
    written = [sizes.get(name) for name in _files_of(record)]
    stated = [record.bytes, record.rejections_bytes][: len(written)]
    return found == (shard.path, shard.fingerprint, shard.planned) and written == stated


def commit_shard(
    release: ReleasePath,
    shard: str,
    fingerprint: str,
    write: Callable[["pa.NativeFile"], None],
    class_ids: Iterable[str],
    started: float,
    rejections: RejectedAttempts | None = None,
) -> ShardRecord:
    """Write file, sidecar and marker, each whole or not at all.

    write: puts the file's content into a stream. class_ids: one for each row.
        rejections: what was not kept, None if everything was; a file of its own.
    """
    written = write_shard(release / shard, write)
    return commit_written(release, shard, fingerprint, written, class_ids, started, rejections)


def write_shard(path: ReleasePath, write: Callable[["pa.NativeFile"], None]) -> WrittenShard:
    """Write the file, and note where its images stand."""
    with shard_stream(path) as stream:
        write(stream.sink)
    return stream.written()


@dataclass
class ShardStream:
    """A shard's file that is being written. hashes: SHA-256 of each image, where known already."""

    sink: "pa.NativeFile"
    hashes: Sequence[bytes] | None = None
    _written: WrittenShard | None = None

    def written(self) -> WrittenShard:
        """What stands there once the file is whole."""
        assert self._written is not None
        return self._written


@contextmanager
def shard_stream(path: ReleasePath) -> Iterator[ShardStream]:
    """For what is to become the file: it stands there whole when the block ends, or not at all."""
    noted: list[str] = []

    def note(content: Content) -> None:
        noted.append(as_text(shard_index(content, shard_format(path.name), found.hashes)))

    with stream_atomically(path, note) as stream:
        found = ShardStream(stream.sink)
        yield found
    found._written = WrittenShard(stream.bytes, stream.sha256, noted[0])


def commit_written(
    release: ReleasePath,
    shard: str,
    fingerprint: str,
    written: WrittenShard,
    class_ids: Iterable[str],
    started: float,
    rejections: RejectedAttempts | None = None,
    made_from: str | None = None,
) -> ShardRecord:
    """Write sidecar and marker of a file that stands there.

    made_from: what its content was read from, for `made_from` to tell.
    """
    per_class = Counter(class_ids)
    record = ShardRecord(
        path=shard,
        rows=per_class.total(),
        bytes=written.bytes,
        sha256=written.sha256,
        fingerprint=fingerprint,
        per_class=dict(sorted(per_class.items())),
        **(_rejection_facts(rejections) if rejections else {}),
    )
    if rejections:
        write_atomically(release / record.rejections_path, rejections.content)
    sidecar: dict[str, Any] = {
        "host": socket.gethostname(),
        "started": started,
        "seconds": time.time() - started,
        "images": {"of": written.sha256, "rows": written.images},
    }
    if made_from is not None:
        sidecar["made_from"] = made_from
    write_atomically(release / sidecar_name(shard), canonical_json(sidecar).encode())
    write_marker(release, record, own_environment())
    return record


def write_marker(release: ReleasePath, record: ShardRecord, environment: Environment) -> None:
    """Say that the shard of `record` is finished, and what it was made with."""
    marker = {
        "shard": asdict(record),
        "device": environment.device,
        "versions": dict(environment.versions),
    }
    write_atomically(marker_path(release, record.path), canonical_json(marker).encode())


def made_from(release: ReleasePath, shards: Iterable[str]) -> dict[str, str]:
    """By path: what the sidecars say that shards were made from, where they do."""
    names = {sidecar_name(shard): shard for shard in shards}
    found = {}
    for name, content in read_files(release, names).items():
        try:
            found[names[name]] = str(json.loads(content)["made_from"])
        except (ValueError, TypeError, KeyError):  # an earlier version's, or not whole: not known
            continue
    return found


def read_marker(release: ReleasePath, shard: str) -> ShardRecord | None:
    """The record in the shard's marker; None if there is none that parses."""
    return next(
        (_parse_marker(c) for c in read_files(release, [marker_name(shard)]).values()), None
    )


def read_marker_content(release: ReleasePath, shard: str) -> bytes | None:
    """What the shard's marker says, None if there is none."""
    if shard != flat_path(shard):
        return packed_markers(release).get(flat_path(shard))
    return read_files(release, [marker_name(shard)]).get(marker_name(shard))


def packed_markers(release: ReleasePath) -> dict[str, bytes]:
    """By path: the markers of a copy whose shards stand in sub-folders, all in one file."""
    path = release / PACKED_MARKERS
    try:
        return _unpacked(path, file_state(path))
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # noted in the manifest, if at all
        return {}


@lru_cache(maxsize=2)
def _unpacked(path: ReleasePath, state: FileState) -> dict[str, bytes]:  # noqa: ARG001
    return {json.loads(line)["shard"]["path"]: line for line in read_bytes(path).splitlines()}


def forget_shard(release: ReleasePath, shard: str) -> None:
    """Delete the shard and all that stands beside it, the marker first: then it does not exist."""
    beside = ShardRecord(shard, 0, 0, "", "", {}).rejections_path
    for name in (marker_name(shard), sidecar_name(shard), beside, shard):
        delete_file(release / name)


def _rejection_facts(rejections: RejectedAttempts) -> dict[str, Any]:
    return {
        "rejected": rejections.rejected,
        "quarantined": rejections.quarantined,
        "rejections_bytes": len(rejections.content),
        "rejections_sha256": sha256_bytes(rejections.content),
    }
