"""A Dask cluster as a user starts one: `dask scheduler`, `dask worker`, TLS, on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from distributed import Security

from builder.cluster.cluster import ClusterOptions
from tests.conftest import ROOT

DASK = Path(sys.executable).parent / "dask"


class DaskCluster:
    """Scheduler and workers (each with its nanny) as processes of their own."""

    def __init__(self, folder: Path, workers: int, **environment: str):
        self._folder = folder
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        folder.mkdir(parents=True, exist_ok=True)
        security = Security.temporary()
        for name in ("ca_file", "client_cert", "client_key"):
            (folder / f"{name}.pem").write_text(getattr(security, f"tls_{name}"))
        self._tls = [
            *("--tls-ca-file", folder / "ca_file.pem"),
            *("--tls-cert", folder / "client_cert.pem"),
            *("--tls-key", folder / "client_key.pem"),
        ]
        self.file = folder / "scheduler.json"
        self.scheduler = self._start(
            *("scheduler", "--host", "tls://127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", self.file),
        )
        self.nannies = [self.add_worker() for _ in range(workers)]

    @property
    def options(self) -> ClusterOptions:
        """How a build reaches it; waits until the scheduler has written its file whole."""
        wait_until(lambda: self.file.is_file() and self.file.read_bytes().rstrip().endswith(b"}"))
        return ClusterOptions(
            scheduler_file=self.file,
            tls_ca=self._folder / "ca_file.pem",
            tls_cert=self._folder / "client_cert.pem",
            tls_key=self._folder / "client_key.pem",
        )

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            *("worker", "--scheduler-file", self.file, "--nthreads", "1", "--memory-limit", "0"),
            *("--host", "127.0.0.1", "--no-dashboard", "--preload", "builder.cluster.worker"),
            *("--local-directory", self._folder),
        )

    def workers(self) -> list[psutil.Process]:
        """The processes that make shards, children of the nannies."""
        return [p for nanny in self.nannies for p in spawned_by(psutil.Process(nanny.pid))]

    def close(self) -> None:
        for process in (*self.nannies, self.scheduler):
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.kill()
            process.wait()

    def _start(self, *arguments: object) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in (DASK, *arguments, *self._tls)],
                env=self._environment,
                stdout=log,
                stderr=log,
            )


def spawned_by(process: psutil.Process) -> list[psutil.Process]:
    """Its descendants that multiprocessing started and that live, as Dask's workers do."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended since it was listed
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for `true()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
