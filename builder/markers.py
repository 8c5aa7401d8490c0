"""The commit protocol of a shard: Parquet file, then sidecar, then marker.

A shard exists when its marker parses, carries the wanted fingerprint, and fits the file's size.
The marker holds nothing that differs from run to run; what does (host, time) is in the sidecar.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from builder.commit import canonical_json, sha256_bytes, write_atomically
from builder.environment import own_environment
from builder.manifest import ShardRecord


def marker_path(release: Path, shard: str) -> Path:
    """Where the marker of `shard` (a path within the release) stands."""
    return release / "markers" / Path(shard).with_suffix(".json")


def sidecar_path(shard: str) -> Path:
    """Where the sidecar of `shard` stands in its release: host and time of its making."""
    return Path("sidecars") / Path(shard).with_suffix(".json")


def committed_record(release: Path, shard: str, fingerprint: str, rows: int) -> ShardRecord | None:
    """The record of a finished shard; None if its marker is missing, foreign or does not fit."""
    try:
        record = ShardRecord(**json.loads(marker_path(release, shard).read_text())["shard"])
        size = (release / shard).stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return None
    wanted = (shard, fingerprint, rows, size)
    found = (record.path, record.fingerprint, record.rows, record.bytes)
    return record if found == wanted else None


def commit_shard(
    release: Path,
    shard: str,
    fingerprint: str,
    content: bytes,
    class_ids: Iterable[str],
    started: float,
) -> ShardRecord:
    """Write file, sidecar and marker, each whole or not at all. class_ids: one for each row."""
    per_class = Counter(class_ids)
    record = ShardRecord(
        path=shard,
        rows=per_class.total(),
        bytes=len(content),
        sha256=sha256_bytes(content),
        fingerprint=fingerprint,
        per_class=dict(sorted(per_class.items())),
    )
    write_atomically(release / shard, content)
    sidecar = {"host": socket.gethostname(), "started": started, "seconds": time.time() - started}
    write_atomically(release / sidecar_path(shard), canonical_json(sidecar).encode())
    environment = own_environment()
    marker = {
        "shard": asdict(record),
        "device": environment.device,
        "versions": dict(environment.versions),
    }
    write_atomically(marker_path(release, shard), canonical_json(marker).encode())
    return record
