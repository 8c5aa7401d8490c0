"""What runs on a worker: one shard at a time, on one thread, as the client's terms say."""

import errno
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pyarrow as pa

from builder.cluster.cluster import ONE_THREAD
from builder.shards.overlap import next_shard_begins_by
from builder.shards.shard import load_generator
from builder.shards.stopping import Stopped, begin_job
from builder.state import STATE_FILE
from release.environment import Environment, own_environment
from release.errors import UserError, redacted
from release.files.commit import sha256_file
from release.files.storage import ReleasePath
from release.images.encoding import encode_image
from release.layout.manifest import ShardRecord

if TYPE_CHECKING:
    from distributed import Worker

MEMORY_ERRORS = ("MemoryError", "_ArrayMemoryError", "OutOfMemoryError", "AcceleratorError")


class Job(Protocol):
    """Something that ends in one committed shard, at `path` in its release."""

    @property
    def path(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def planned(self) -> int: ...
    @property
    def after(self) -> str | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def release(self) -> ReleasePath: ...
    def committed(self) -> ShardRecord | None: ...
    def run(self) -> ShardRecord: ...


@dataclass(frozen=True)
class WrappedJob:
    """Another job under other circumstances: a subclass says which."""

    job: Job

    @property
    def path(self) -> str:
        return self.job.path

    @property
    def fingerprint(self) -> str:
        return self.job.fingerprint

    @property
    def planned(self) -> int:
        return self.job.planned

    @property
    def after(self) -> str | None:
        return self.job.after

    @property
    def priority(self) -> int:
        return self.job.priority

    @property
    def release(self) -> ReleasePath:
        return self.job.release

    def committed(self) -> ShardRecord | None:
        return self.job.committed()

    def run(self) -> ShardRecord:
        return self.job.run()


@dataclass(frozen=True)
class Terms:
    """What the client asks of every worker.

    run: this build's own name. environment: what the worker must have; None: anything goes.
    state_sha256: of the release's state file, which the worker must see.
    """

    run: str
    environment: Environment | None
    state_sha256: str


@dataclass(frozen=True)
class Done:
    """A committed shard, and what it was made with."""

    record: ShardRecord
    environment: Environment


@dataclass(frozen=True)
class Failure:
    """A shard that could not be made. reason: one line; detail: the traceback, where there is one.

    kind: an exception; an exception for want of memory, after which the process is not to be
    trusted with another shard; the end of the worker's process.
    """

    path: str
    kind: Literal["exception", "memory", "killed"]
    reason: str
    detail: str = ""
    worker: str = ""
    host: str = ""


def run_job(job: Job, terms: Terms) -> Done | Failure | None:
    """Make the shard unless it is there already; None if the build was told to stop.

    What no other shard would fare better with is raised: bad input (UserError), a full disk.
    """
    from distributed import secede

    try:
        begin_job(terms.run)
        _keep_terms(job, terms)
        use_one_thread()
        with next_shard_begins_by(secede):
            return Done(job.committed() or job.run(), own_environment())
    except Stopped:
        return None
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror) from None  # plain: it has to travel
        return _failure(job, error)


def use_one_thread() -> None:
    """With more, a row's last bit depends on its place in the batch; also on foreign workers."""
    os.environ.update(ONE_THREAD)  # for a torch that is not imported yet
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def require_one_thread() -> None:
    """UserError for a Dask worker with more: tasks side by side would share torch's randomness."""
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:
        raise UserError(
            f"worker {worker.address} has {worker.state.nthreads} threads; start workers with "
            "--nthreads 1, one for each GPU or core"
        )


def _keep_terms(job: Job, terms: Terms) -> None:
    from distributed import get_worker

    require_one_thread()
    worker = get_worker()
    difference = terms.environment and terms.environment.difference(own_environment())
    if difference:
        raise UserError(
            f"worker {worker.address} has {difference} as here or in the release: images would "
            "differ; make them the same or allow it with --allow-mixed"
        )
    try:
        seen = sha256_file(job.release / STATE_FILE)
    except FileNotFoundError:
        seen = None
    if seen is None:
        raise UserError(
            f"worker {worker.address} finds no {STATE_FILE} in {job.release}: either it was "
            "removed meanwhile, or --out is not on storage that client and workers share"
        )
    if seen != terms.state_sha256:
        raise UserError(
            f"worker {worker.address} sees another {STATE_FILE} in {job.release} than this build "
            "wrote: either it was changed meanwhile, or --out is not on storage that client and "
            "workers share"
        )


def _failure(job: Job, error: Exception) -> Failure:
    from distributed import get_worker

    load_generator.cache_clear()  # a model that failed half-way is loaded anew
    return Failure(
        path=job.path,
        kind="memory" if type(error).__name__ in MEMORY_ERRORS else "exception",
        reason=redacted(" ".join(f"{type(error).__name__}: {error}".split())),
        detail=redacted(traceback.format_exc()),
        worker=get_worker().address,
        host=socket.gethostname(),
    )


def dask_setup(worker: "Worker") -> None:  # noqa: ARG001 - Dask's name for what a preload does
    """Leave Ctrl-C to the client; import what each shard needs before there is one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pillow imports its plugins, pyarrow pandas, when first used: half a second of a first shard
    encode_image(np.zeros((1, 1, 3), np.uint8), "webp-lossless", synthetic=True)
    pa.array([0])
