"""quarantine/: the shards that kept failing, each with its reason, until a rerun makes them.

What differs from run to run (worker, host, time, traceback) is in the sidecar of the same name.
"""

import json
import shutil
import time
from pathlib import Path

from builder.commit import canonical_json, write_atomically
from builder.worker import Failure

FOLDER = "quarantine"


def quarantine_shard(release: Path, failure: Failure) -> None:
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


def clear_quarantine(release: Path) -> None:
    """Forget what was quarantined: it is about to be tried again."""
    for folder in (release / FOLDER, release / "sidecars" / FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def _record(release: Path, path: str) -> Path:
    return release / FOLDER / Path(path).with_suffix(".json")


def _sidecar(release: Path, path: str) -> Path:
    return release / "sidecars" / FOLDER / Path(path).with_suffix(".json")
