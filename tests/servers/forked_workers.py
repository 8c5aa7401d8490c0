"""A running cluster whose workers start in a moment: forks of a process that has imported all."""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client, Scheduler, Security, SpecCluster, Worker

from builder.cluster.cluster import Cluster
from builder.cluster.worker import dask_setup
from tests.conftest import ROOT
from tests.forked_commands import worker_forks
from tests.servers.fork_server import start_fork_server


def run_worker(address: str, resources: dict[str, float], folder: Path) -> None:
    """As `dask worker --nthreads 1 --no-nanny`, until it is killed."""

    async def work() -> None:
        async with Worker(
            address,
            nthreads=1,
            memory_limit=0,
            resources=resources,
            local_directory=str(folder),
        ) as worker:
            await worker.finished()

    start_fork_server()  # its own, as a worker's is: a child of it, which has its children
    os.chdir(folder)  # not the client's
    sys.stderr = (folder / "log").open("a")
    dask_setup(None)  # type: ignore[arg-type]
    asyncio.run(work())


class ForkedWorkers:
    """The workers of a cluster that runs already, which a test kills and starts."""

    def __init__(self, cluster: Cluster, address: str, folder: Path) -> None:
        self.cluster, self.said = cluster, list[str]()
        self._address, self._folder = address, folder
        self._forking = multiprocessing.get_context("forkserver")
        self.processes: list[multiprocessing.process.BaseProcess] = []

    def start(self, **resources: float) -> None:
        process = self._forking.Process(
            target=run_worker, args=(self._address, resources, self._folder)
        )
        with pytest.MonkeyPatch.context() as patch:  # others have packages named tests, too
            patch.syspath_prepend(str(ROOT))
            process.start()
        self.processes.append(process)

    def kill(self, number: int = -1) -> None:
        """One of those that are left, as a batch system ends a job; waits until it is gone."""
        process = self.processes.pop(number)
        process.kill()
        process.join()


@contextmanager
def forked_workers(folder: Path, count: int) -> Iterator[ForkedWorkers]:
    """`count` of them, and the cluster as a command meets it."""
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": options}
    with worker_forks(), SpecCluster({}, scheduler, security=Security()) as alone:
        address = alone.scheduler_address
        with Client(alone) as client:
            workers = ForkedWorkers(Cluster(client, True, address), address, folder)
            for _ in range(count):
                workers.start()
            yield workers
            while workers.processes:
                workers.kill()
