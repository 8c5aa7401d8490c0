"""Builds without a cluster: jobs one after another in this process, told when to be killed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from builder.builds import live_run as live_module
from builder.builds import run as run_module
from builder.cluster.cluster import Cluster
from builder.cluster.worker import Done, Failure, Job
from release.environment import own_environment
from release.real_sources.opening import open_source


class InProcess:
    """left: how many jobs until the build is killed; failing: the path of one that fails.

    where: the working directory of the worker, by default the client's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.failing = float("inf"), ""
        self.where: Path | None = None
        self.made: list[str] = []
        self.opened = 0
        monkeypatch.setattr(run_module, "run_jobs", self._run_jobs)
        for module in (run_module, live_module):
            monkeypatch.setattr(module, "open_cluster", self._open_cluster)

    def _open_cluster(self, *_: object) -> AbstractContextManager[Cluster]:
        self.opened += 1
        return nullcontext(Cluster(None, False, "here"))  # type: ignore[arg-type]

    def _run_jobs(self, _: Cluster, jobs: Sequence[Job], *__: object) -> Iterator[Done | Failure]:
        here = Path.cwd()
        for job in jobs:
            if job.path == self.failing:
                yield Failure(job.path, "exception", "no luck")
                continue
            if len(self.made) >= self.left:
                raise KeyboardInterrupt
            self.made.append(job.path)
            open_source.cache_clear()  # a worker has looked for nothing yet
            os.chdir(self.where or here)
            try:
                record = job.run()
            finally:
                os.chdir(here)
            yield Done(record, own_environment())
