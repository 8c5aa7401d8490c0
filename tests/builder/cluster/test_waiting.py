"""Whoever waits for workers gets others, or an end in one line; never a silent wait for ever."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil
import pytest

from builder.cluster import waiting
from builder.cluster.cluster import WORKER, Cluster, ClusterOptions, open_cluster
from builder.cluster.engine import run_jobs
from builder.cluster.waiting import completed
from builder.cluster.worker import Terms
from release.commands.interrupt import interruptible
from release.errors import UserError
from tests.servers.dask_cluster import DaskCluster, spawned_by, wait_until

SITE_SETTINGS = {
    "distributed.comm.require-encryption": True,
    "distributed.comm.default-scheme": "tls",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.2)


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """One worker on this machine, where a site asks for TLS, killed once while it started."""
    known = set(worker_processes())
    killing = threading.Thread(target=kill_first_but, args=(known,))
    killing.start()
    with (
        dask.config.set(SITE_SETTINGS),
        open_cluster(ClusterOptions(1), 1, lambda _: None) as cluster,
    ):
        killing.join()
        yield cluster


def worker_processes() -> list[psutil.Process]:
    return spawned_by(psutil.Process())


def kill_first_but(known: set[psutil.Process]) -> None:
    wait_until(lambda: bool(set(worker_processes()) - known))
    (set(worker_processes()) - known).pop().kill()


def add(cluster: Cluster, key: str) -> int:
    (done,) = completed(cluster, [cluster.submit(sum, [1, 2], key=key)])
    return int(cluster.result(done))


def test_a_worker_killed_while_it_starts_is_started_again(own: Cluster):
    assert own.threads() == 1
    assert add(own, "first") == 3


def test_a_cluster_of_this_machine_is_no_matter_of_the_sites_settings(own: Cluster):
    assert own.own is not None
    assert own.own.scheduler_address.startswith("tcp://127.0.0.1:")


def test_a_worker_whose_nanny_gave_up_is_replaced(own: Cluster):
    local = own.own
    assert local is not None
    wait_until(lambda: bool(local.workers))
    for nanny in list(local.workers.values()):
        local.sync(nanny.close)
    assert add(own, "third") == 3


def test_dask_leaves_the_nanny_of_a_lost_worker_alone(own: Cluster):
    """It would close it for good where the next worker has not registered within 15 s."""
    local = own.own
    assert local is not None
    loop = local.loop.asyncio_loop  # type: ignore[union-attr]
    worker_processes()[0].kill()
    wait_until(lambda: own.threads() == 0)
    checks = [timer for timer in loop._scheduled if "_update_worker_status" in repr(timer)]
    assert checks
    assert all(timer.when() - loop.time() > 1e6 for timer in checks)
    assert add(own, "fourth") == 3


class _Asleep:
    """A job for a worker that never comes back."""

    path, fingerprint, planned, after, priority = "8/train-a.parquet", "", 1, None, 0


def test_a_running_cluster_without_workers_ends_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(waiting, "FOREIGN_LIMIT_SECONDS", 1.0)
    dask_cluster = DaskCluster(tmp_path / "dask", workers=1)
    said: list[str] = []
    left = r"no worker came to .* within 1 s: what is finished is kept; start workers"
    try:
        with open_cluster(dask_cluster.options, 1, said.append) as cluster:
            wait_until(lambda: cluster.threads() == 1)
            sleeping = cluster.submit(time.sleep, 60, key="sleep")
            worker = dask_cluster.workers()[0]
            dask_cluster.nannies[0].kill()
            worker.kill()
            wait_until(lambda: cluster.threads() == 0)
            with pytest.raises(UserError, match=left):
                list(completed(cluster, [sleeping]))
            terms = Terms("run", None, "")
            with interruptible() as events, pytest.raises(UserError, match=left):
                list(run_jobs(cluster, [_Asleep()], lambda _: terms, events))  # type: ignore[list-item]
    finally:
        dask_cluster.close()
    assert len([line for line in said if "waiting at most 1 s for one" in line]) == 2


def test_workers_that_cannot_start_are_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(WORKER, "preload", ["no_such_module"])
    with (
        pytest.raises(UserError, match=r"no workers start on this machine: .*no_such_module"),
        open_cluster(ClusterOptions(1), 1, lambda _: None),
    ):
        pass
