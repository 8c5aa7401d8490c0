"""An import in this process: the jobs one after the other, without a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.builds.growth import known_records
from builder.builds.run import Outcome, ReleaseJobs, RunSettings
from builder.imports import release as real
from builder.state import write_state
from release.environment import own_environment
from release.layout.manifest import Manifest, ShardRecord
from release.real_sources.opening import open_source


class SerialImport:
    """Calls import_real; made: the paths of the files that the last call wrote."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        patch.setattr(real, "run_builds", self._run)

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
        releases: Sequence[ReleaseJobs],
        settings: RunSettings,  # noqa: ARG002
        on_done: Callable[[ShardRecord], None],
    ) -> list[Outcome]:
        (asked,) = releases
        assert asked.state is not None
        write_state(asked.release, asked.state)
        done = known_records(asked.release, asked.jobs)
        for job in asked.jobs:
            record = done.get(job.path) or job.committed()
            if record is None:
                record = job.run()
                self.made.append(job.path)
            done[job.path] = record
            on_done(record)
        records = tuple(done[job.path] for job in asked.jobs)
        return [Outcome(records, (), (), (own_environment(),))]
