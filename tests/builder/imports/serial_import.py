"""An import in this process: the jobs one after the other, without a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.builds.run import Outcome, RunSettings
from builder.cluster.worker import Job
from builder.imports import release as real
from builder.standing.state import RealState, write_state
from release.files.storage import ReleasePath
from release.layout.environment import own_environment
from release.layout.manifest import Manifest, ShardRecord
from release.layout.markers import committed_records
from release.real_sources import open_source


class SerialImport:
    """Calls import_real; made: the paths of the files that the last call wrote."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        patch.setattr(real, "run_missing", self._run)

    def __call__(
        self, source: Path | str, release: Path, views: Sequence[int] = (8,), **settings: Any
    ) -> Manifest:
        open_source.cache_clear()  # as a new process would
        self.made = []
        rule = settings.pop("crop_rule", "center-crop")
        outcome = real.import_real(
            str(source), release, views, rule, RunSettings(), lambda _: None, **settings
        )
        assert outcome.manifest is not None
        return outcome.manifest

    def _run(
        self,
        release: ReleasePath,
        state: RealState,
        jobs: Sequence[Job],
        settings: RunSettings,  # noqa: ARG002
        on_done: Callable[[ShardRecord], None],
    ) -> Outcome:
        write_state(release, state)
        done = committed_records(release, jobs)
        for job in jobs:
            record = done.get(job.path) or job.committed()
            if record is None:
                record = job.run()
                self.made.append(job.path)
            done[job.path] = record
            on_done(record)
        return Outcome(tuple(done[job.path] for job in jobs), (), (), (own_environment(),))
