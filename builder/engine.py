"""The cluster: running jobs on Dask, each ending in one committed shard."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from builder.manifest import ShardRecord
from generation.errors import UserError

if TYPE_CHECKING:
    from distributed import Client, Future


class Job(Protocol):
    """Something that ends in one committed shard, at `path` in its release."""

    @property
    def path(self) -> str: ...
    @property
    def after(self) -> str | None: ...
    @property
    def priority(self) -> int: ...
    def committed(self) -> ShardRecord | None: ...
    def run(self) -> ShardRecord: ...


# One torch thread; no memory limit: Dask would pause a worker for good that holds a large model.
WORKER = {"nthreads": 1, "host": "127.0.0.1", "memory_limit": 0}


@contextmanager
def local_cluster(workers: int | None, most: int) -> Iterator["Client"]:
    """`workers` processes, at most `most`; by default one a GPU, else one a core.

    Each has one torch thread, so bits do not depend on how many there are. Scheduler and dashboard
    listen on this machine alone.
    """
    import dask
    from dask.system import CPU_COUNT  # of this container, not of its host

    gpus = _visible_gpus()
    count = min(workers or len(gpus) or CPU_COUNT, most)
    environments = [
        {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(count)
    ]
    settings = {
        "distributed.scheduler.worker-saturation": 1.0,  # a waiting task stays with the scheduler
        "distributed.scheduler.worker-ttl": None,  # a long C call may hold the GIL
        # The command tells what a user should know; in workers only the environment is early enough
        "logging": {"distributed": "critical"},
        "distributed.nanny.pre-spawn-environ": {
            "DASK_LOGGING__DISTRIBUTED": "critical",
            "OMP_NUM_THREADS": 1,
            "MKL_NUM_THREADS": 1,
            "OPENBLAS_NUM_THREADS": 1,
            # Dask's own trim threshold hands each tensor's memory back to the kernel at once, which
            # costs a third of the time of sampling on a CPU.
            "MALLOC_TRIM_THRESHOLD_": 512 << 20,
            "MALLOC_MMAP_THRESHOLD_": 32 << 20,
        },
    }
    with dask.config.set(settings):
        from distributed import Client, Nanny, Scheduler, SpecCluster  # reads its log level once

        scheduler = {
            "cls": Scheduler,
            "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        }
        specs = {
            i: {"cls": Nanny, "options": {"env": env} | WORKER}
            for i, env in enumerate(environments)
        }
        cluster = SpecCluster(workers=specs, scheduler=scheduler)
        try:
            with Client(cluster) as client:
                yield client
        finally:
            # On a busy machine workers can take longer to end than Dask waits for them; what they
            # made is committed, and they are daemons: they end with this process.
            with suppress(TimeoutError):
                cluster.close()


def run_jobs(client: "Client", jobs: Sequence[Job]) -> Iterator[ShardRecord]:
    """Do every job, yielding records as they come; a job waits for the one it comes after."""
    from distributed import KilledWorker, as_completed

    waiting: dict[str, list[Job]] = defaultdict(list)
    planned = {job.path for job in jobs}
    ready: list[Job] = []
    for job in jobs:
        after = job.after
        (waiting[after] if after is not None and after in planned else ready).append(job)
    running = as_completed([_submit(client, job) for job in ready])
    for future in running:
        try:
            record = future.result()
        except KilledWorker:
            raise UserError(
                f"shard {future.key} ended its worker several times (out of memory?); finished "
                "shards are kept: rerun with fewer --workers"
            ) from None
        for child in waiting.pop(record.path, []):
            running.add(_submit(client, child))
        future.release()
        yield record


def _submit(client: "Client", job: Job) -> "Future":
    return client.submit(run_job, job, key=job.path, pure=False, priority=job.priority)


def run_job(job: Job) -> ShardRecord:
    """What a worker does: nothing, if the shard is there already."""
    return job.committed() or job.run()


def _visible_gpus() -> list[str]:
    """Indices of the GPUs this process may use, without importing torch when there is no driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name for name in names if name.strip() and not name.strip().startswith("-")]
    if not Path("/dev/nvidiactl").exists():
        return []
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
