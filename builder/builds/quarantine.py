"""quarantine/: the shards that kept failing, each with its reason, until a rerun makes them.

What differs from run to run (worker, host, time, traceback) is in the sidecar of the same name.
"""

import json
import time
from pathlib import PurePosixPath

from builder.cluster.worker import Failure
from release.files.commit import canonical_json, delete_folder, write_atomically
from release.files.storage import ReleasePath

FOLDER = "quarantine"


def quarantine_shard(release: ReleasePath, failure: Failure) -> None:
    """Record that the shard at `failure.path` could not be made."""
    content = {"shard": failure.path, "kind": failure.kind, "reason": failure.reason}
    write_atomically(_record(release, failure.path), (canonical_json(content) + "\n").encode())
    volatile = {
        "worker": failure.worker,
        "host": failure.host,
        "time": time.time(),
        "traceback": failure.detail,
    }
    text = json.dumps(volatile, indent=1) + "\n"
    write_atomically(_sidecar(release, failure.path), text.encode())


def clear_quarantine(release: ReleasePath, config: str = "") -> None:
    """Forget what was quarantined, of one configuration or of all: it is to be tried again."""
    for folder in (release / FOLDER / config, release / "sidecars" / FOLDER / config):
        delete_folder(folder)


def _record(release: ReleasePath, path: str) -> ReleasePath:
    return release / FOLDER / _json(path)


def _sidecar(release: ReleasePath, path: str) -> ReleasePath:
    return release / "sidecars" / FOLDER / _json(path)


def _json(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(".json"))
