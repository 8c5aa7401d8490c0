"""One run of builds: which shards releases lack, on what they may be made, and what failed.

A run makes what one release lacks (a build, an import, a repair, a training view) or what several
lack, as one list of jobs on one cluster (the candidates of a selection).
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from builder.builds.growth import keep_loadable, known_records
from builder.builds.quarantine import clear_quarantine, quarantine_shard
from builder.cluster.cluster import Cluster, ClusterOptions, open_cluster
from builder.cluster.engine import first_environment, run_jobs
from builder.cluster.worker import Done, Failure, Job, Terms
from builder.state import STATE_FILE, AnyState, write_state
from release.commands.interrupt import Events, interruptible
from release.environment import Environment, distinct, own_environment
from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import ReleasePath
from release.layout.manifest import Manifest, ShardRecord

OnDone = Callable[[ShardRecord], None]
OpenCluster = Callable[[int], AbstractContextManager[Cluster]]


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing here decides an image, unless mixing is allowed.

    say: for remarks. mixing_offered: whether the command has --allow-mixed, which errors then name.
    """

    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    allow_mixed: bool = False
    say: Callable[[str], None] = lambda _: None
    mixing_offered: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs. records: of those committed, in their order; waiting: paths of
    those whose parent is quarantined; manifest: None if nothing at all was made; made: paths of
    those that this run did."""

    records: tuple[ShardRecord, ...]
    quarantined: tuple[Failure, ...]
    waiting: tuple[str, ...]
    environments: tuple[Environment, ...]
    manifest: Manifest | None = None
    made: tuple[str, ...] = ()

    def origin(self) -> dict[str, Any]:
        """What the manifest says of it: planned = committed + quarantined + waiting."""
        content: dict[str, Any] = {
            "environments": [
                {"device": e.device, "versions": dict(e.versions)} for e in self.environments
            ]
        }
        if self.quarantined:
            content["quarantined_shards"] = {f.path: f.reason for f in self.quarantined}
            content["waiting_shards"] = list(self.waiting)
        return content


@dataclass(frozen=True)
class ReleaseJobs:
    """What one release is to hold, and what is done about it beside the jobs themselves.

    state: what the folder says it will hold; None: the state file stays as it is. config: the
    configuration whose quarantine is tried again, "" for all. announce: gets the records of what
    is done, if anything is missing. finish: writes README and manifest as soon as every job is
    done; None: the caller does.
    """

    release: ReleasePath
    state: AnyState | None
    jobs: Sequence[Job]
    config: str = ""
    announce: Callable[[Mapping[str, ShardRecord]], None] = lambda _: None
    finish: Callable[[Outcome], Manifest] | None = None


def run_builds(
    releases: Sequence[ReleaseJobs],
    settings: RunSettings,
    on_done: OnDone,
    opened: OpenCluster | None = None,
) -> list[Outcome]:
    """Do the jobs that no earlier run has committed, those in quarantine included.

    opened: the cluster for at most so many jobs at once; by default one that ends with the run.
    Raises UserError if shards would be made with other versions, or on another kind of device, than
    the rest of their release; Interrupted after Ctrl-C.
    """
    under_way = [_Release(asked) for asked in releases]
    owner = {job.path: release for release in under_way for job in release.missing}
    missing = [job for release in under_way for job in release.missing]
    if len(owner) < len(missing):
        raise ValueError("two of the releases would make the same shard: share their parent")
    if missing and not settings.cluster.foreign:
        _require_agreement(under_way, settings, own_environment())
    for release in under_way:
        release.begin(on_done)
    if missing:
        with interruptible() as events, (opened or _own_cluster(settings))(len(missing)) as cluster:
            _run_missing(cluster, owner, missing, settings, events, on_done)
    return [release.outcome() for release in under_way]


class _Release:
    """One of the releases of a run: its jobs, which of them are done, what they are made with."""

    def __init__(self, asked: ReleaseJobs) -> None:
        self._asked, self._state = asked, asked.state
        self._done = known_records(asked.release, asked.jobs)
        self._failed: dict[str, Failure] = {}
        self._met: set[Environment] = set()
        self._manifest: Manifest | None = None
        self.missing = [job for job in asked.jobs if job.path not in self._done]

    def require_agreement(self, environment: Environment, settings: RunSettings) -> None:
        """UserError if the release holds shards that were made with something else."""
        if self._state is not None and self._done:
            earlier = self._state.environments
            require_same_environment(self._asked.release, earlier, environment, settings)

    def begin(self, on_done: OnDone) -> None:
        """Say what is to come and what is there; with nothing missing, finish."""
        if self._state is not None:
            write_state(self._asked.release, self._state)
        for record in self._done.values():
            on_done(record)
        if self.missing:
            self._asked.announce(self._done)
            clear_quarantine(self._asked.release, self._asked.config)
            keep_loadable(self._asked.release, [job.path for job in self.missing])
        self._finish_if_whole()

    def terms(self, run: str, environment: Environment | None) -> Terms:
        """What workers are asked for; the environment is noted as the release's."""
        self._note([environment] if environment else [])
        return Terms(run, environment, sha256_file(self._asked.release / STATE_FILE))

    def add(self, done: Done) -> None:
        self._done[done.record.path] = done.record
        self._met.add(done.environment)
        self._finish_if_whole()

    def quarantine(self, failure: Failure) -> None:
        self._failed[failure.path] = failure
        quarantine_shard(self._asked.release, failure)

    def note_met(self) -> None:
        """What shards of this run were made with, whatever was agreed on."""
        self._note(self._met)

    def outcome(self) -> Outcome:
        done, settled, jobs = self._done, self._done | self._failed, self._asked.jobs
        return Outcome(
            records=tuple(done[job.path] for job in jobs if job.path in done),
            quarantined=tuple(self._failed.values()),
            waiting=tuple(job.path for job in self.missing if job.path not in settled),
            environments=self._state.environments if self._state else (),
            manifest=self._manifest,
            made=tuple(job.path for job in self.missing if job.path in done),
        )

    def _note(self, environments: Iterable[Environment]) -> None:
        """Add them to the state file; if nothing was made yet, earlier ones were never used."""
        if self._state is None:
            return
        earlier = self._state.environments if self._done else ()
        every = tuple(distinct([*earlier, *environments]))
        if every != self._state.environments:
            self._state = replace(self._state, environments=every)
            write_state(self._asked.release, self._state)

    def _finish_if_whole(self) -> None:
        if self._asked.finish is not None and 0 < len(self._done) == len(self._asked.jobs):
            self.note_met()
            self._manifest = self._asked.finish(self.outcome())


def _run_missing(
    cluster: Cluster,
    owner: Mapping[str, _Release],
    missing: Sequence[Job],
    settings: RunSettings,
    events: Events,
    on_done: OnDone,
) -> None:
    """owner: by path of a missing job, the release that lacks it."""
    releases = list(dict.fromkeys(owner.values()))
    agreed = agreed_environment(cluster, settings, events)
    if agreed is not None:
        _require_agreement(releases, settings, agreed)
    run = uuid.uuid4().hex
    terms = {release: release.terms(run, agreed) for release in releases}
    try:
        for result in run_jobs(cluster, missing, lambda job: terms[owner[job.path]], events):
            if isinstance(result, Failure):
                owner[result.path].quarantine(result)
                settings.say(f"quarantined {result.path}: {result.reason}")
            else:
                on_done(result.record)
                owner[result.record.path].add(result)
    finally:
        for release in releases:
            release.note_met()


def _own_cluster(settings: RunSettings) -> OpenCluster:
    return lambda most: open_cluster(settings.cluster, most, settings.say)


def agreed_environment(
    cluster: Cluster, settings: RunSettings, events: Events
) -> Environment | None:
    """What every worker must have, of a running cluster what its first one has; None if anything
    goes. UserError if that has other versions than this process, which plans and finishes."""
    found = first_environment(cluster, events) if cluster.foreign else None
    if settings.allow_mixed:
        return None
    own = own_environment()
    if found is None:
        return own
    if difference := replace(own, device=found.device).difference(found):
        remedy = " or allow it with --allow-mixed" if settings.mixing_offered else ""
        raise UserError(
            f"the workers at {cluster.address} have {difference} as here: images would differ; "
            f"make them the same{remedy}"
        )
    return found


def _require_agreement(
    releases: Sequence[_Release], settings: RunSettings, environment: Environment
) -> None:
    for release in releases:
        if release.missing and not settings.allow_mixed:
            release.require_agreement(environment, settings)


def require_same_environment(
    release: ReleasePath,
    earlier: Iterable[Environment],
    environment: Environment,
    settings: RunSettings,
) -> None:
    """UserError if any of `earlier`, which shards of the release were made with, is another."""
    remedies = ["go on where it was begun", "name another --out"]
    if settings.mixing_offered:
        remedies.append("mix them with --allow-mixed")
    for one in earlier:
        if difference := one.difference(environment):
            raise UserError(
                f"{release} was not made with what is here: {difference}; "
                f"{', '.join(remedies[:-1])}{',' * (len(remedies) > 2)} or {remedies[-1]}"
            )
