"""What is done of a shard that takes long, kept so that it goes on inside itself after a kill.

RELEASE/halfway/RESOLUTION/SHARD.half: the SHA-256 of what follows, then an Arrow file of the
images so far. It counts only for the same images made by the same means from the same parents;
a damaged one, or another shard's, counts for nothing.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from builder.accept import Verdict
from builder.planning.plan import ShardPlan
from builder.shards.slots import Cell, Rejection, Slots
from release.environment import own_environment
from release.files.commit import (
    canonical_json,
    delete_file,
    delete_folder,
    sha256_bytes,
    sha256_text,
    write_atomically,
)
from release.files.storage import ReleasePath, list_files, read_bytes
from release.layout.shard_commit import read_marker

FOLDER = "halfway"
SUFFIX = ".half"  # of what is no shard yet
EVERY_SECONDS = 300.0  # so much work a kill costs at most
STOPPED_SECONDS = 60.0  # less is not worth a file when a build is stopped
DIGEST = 64  # characters of a SHA-256
SCHEMA = pa.schema([("slot", pa.int32()), ("attempt", pa.int16()), ("image", pa.binary())])


@dataclass
class Halfway:
    """The file of one shard. identity: hash of all that decides its images. seconds: that were
    worked on it before, once it is taken up."""

    path: ReleasePath
    identity: str
    seconds: float = 0.0
    _stands: bool = False
    _began: float = field(default_factory=time.monotonic)
    _noted: float = field(default_factory=time.monotonic)

    @classmethod
    def of(
        cls, release: ReleasePath, plan: ShardPlan, release_seed: int, cells: Sequence[Cell]
    ) -> "Halfway":
        """Of the shard of `plan`."""
        parents = None if plan.parent_path is None else read_marker(release, plan.parent_path)
        content = [
            *(plan.path, plan.stage.fingerprint, release_seed),
            None if parents is None else parents.sha256,
            asdict(own_environment()),
            [[cell.entry.wnid, cell.index, cell.prompt] for cell in cells],
        ]
        place = PurePosixPath(FOLDER, plan.path).with_suffix(SUFFIX)
        return cls(release / str(place), sha256_text(canonical_json(content)))

    def take_up(self, slots: Slots) -> dict[int, bytes]:
        """The encoded images that are kept, by slot; `slots` then knows what came of the others."""
        try:
            content = read_bytes(self.path)
        except FileNotFoundError:
            return {}
        self._stands = True
        payload = memoryview(content)[DIGEST:]
        if bytes(content[:DIGEST]) != sha256_bytes(payload).encode():
            return {}
        table = pa.ipc.open_file(pa.py_buffer(payload)).read_all()
        about = table.schema.metadata
        if about[b"identity"] != self.identity.encode():
            return {}
        self.seconds = float(about[b"seconds"])
        rejections = [_rejection(fields) for fields in json.loads(about[b"rejections"])]
        numbers = table["slot"].to_pylist()
        slots.go_on(dict(zip(numbers, table["attempt"].to_pylist(), strict=True)), rejections)
        return dict(zip(numbers, table["image"].to_pylist(), strict=True))

    def due(self, *, stopped: bool) -> bool:
        """Whether enough was done since the last time; stopped: there is no next time."""
        wanted = STOPPED_SECONDS if stopped else EVERY_SECONDS
        return time.monotonic() - self._noted > wanted

    def save(self, slots: Slots, images: dict[int, bytes]) -> None:
        """Keep `images`, those of all accepted slots, and what came of the others."""
        numbers = sorted(images)
        attempts = [slots.accepted[slot] for slot in numbers]
        about = {
            "identity": self.identity,
            "seconds": str(self.seconds + time.monotonic() - self._began),
            "rejections": json.dumps([asdict(rejection) for rejection in slots.rejections]),
        }
        table = pa.table(
            [numbers, attempts, [images[slot] for slot in numbers]],
            schema=SCHEMA.with_metadata(about),
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        payload = sink.getvalue().to_pybytes()
        write_atomically(self.path, sha256_bytes(payload).encode() + payload)
        self._stands, self._noted = True, time.monotonic()

    def forget(self) -> None:
        """The shard is committed."""
        if self._stands:
            delete_file(self.path)


def forget_finished(release: ReleasePath, shards: Iterable[str]) -> None:
    """Delete the files of `shards`, and the folder if it holds those of no others."""
    done = {str(PurePosixPath(path).with_suffix(SUFFIX)) for path in shards}
    names = set(list_files(release / FOLDER))
    if names <= done:
        delete_folder(release / FOLDER)
        return
    for name in names & done:
        delete_file(release / FOLDER / name)


def _rejection(fields: dict[str, Any]) -> Rejection:
    return Rejection(**fields | {"verdict": Verdict(**fields["verdict"])})
