"""Running what a release lacks: which shards are missing, on what they may be made, what failed."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from builder.builds.growth import keep_loadable, known_records
from builder.builds.quarantine import clear_quarantine, quarantine_shard
from builder.cluster.cluster import Cluster, ClusterOptions, open_cluster
from builder.cluster.engine import first_environment, run_jobs
from builder.cluster.worker import Failure, Job, Terms
from builder.standing.state import STATE_FILE, RealState, SyntheticState, write_state
from release.commands.interrupt import Events, interruptible
from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import ReleasePath
from release.layout.environment import Environment, distinct, own_environment
from release.layout.manifest import Manifest, ShardRecord


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing here decides an image, unless mixing is allowed. say: for remarks."""

    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    allow_mixed: bool = False
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs. records: of those committed, in their order; waiting: paths of
    those whose parent is quarantined; manifest: None if nothing at all was made."""

    records: tuple[ShardRecord, ...]
    quarantined: tuple[Failure, ...]
    waiting: tuple[str, ...]
    environments: tuple[Environment, ...]
    manifest: Manifest | None = None

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


@dataclass
class _Run:
    """A run under way."""

    release: ReleasePath
    state: SyntheticState | RealState
    settings: RunSettings
    done: dict[str, ShardRecord]
    failed: dict[str, Failure] = field(default_factory=dict)
    met: set[Environment] = field(default_factory=set)


def run_missing(
    release: ReleasePath,
    state: SyntheticState | RealState,
    jobs: Sequence[Job],
    settings: RunSettings,
    on_done: Callable[[ShardRecord], None],
    before: Callable[[Mapping[str, ShardRecord]], None] = lambda _: None,
) -> Outcome:
    """Do the jobs that no earlier run has committed, those in quarantine included.

    before: called with the records of what is done, if anything is missing.
    Raises UserError if they would be made with other versions, or on another kind of device, than
    the rest of the release; Interrupted after Ctrl-C.
    """
    run = _Run(release, state, settings, known_records(release, jobs))
    missing = [job for job in jobs if job.path not in run.done]
    if missing and not settings.cluster.foreign:
        _require_agreement(run, own_environment())
    write_state(release, state)
    for record in run.done.values():
        on_done(record)
    if missing:
        before(run.done)
        clear_quarantine(release)
        keep_loadable(release, [job.path for job in missing])
        with interruptible() as events:
            _run_on_cluster(run, missing, events, on_done)
    return Outcome(
        records=tuple(run.done[job.path] for job in jobs if job.path in run.done),
        quarantined=tuple(run.failed.values()),
        waiting=tuple(j.path for j in jobs if j.path not in run.done and j.path not in run.failed),
        environments=run.state.environments,
    )


def _run_on_cluster(
    run: _Run, missing: Sequence[Job], events: Events, on_done: Callable[[ShardRecord], None]
) -> None:
    settings = run.settings
    with open_cluster(settings.cluster, len(missing), settings.say) as cluster:
        environment = _agreed_environment(run, cluster, events)
        _note_environments(run, [environment] if environment else [])
        terms = Terms(uuid.uuid4().hex, environment, sha256_file(run.release / STATE_FILE))
        try:
            for result in run_jobs(cluster, missing, terms, events):
                if isinstance(result, Failure):
                    run.failed[result.path] = result
                    quarantine_shard(run.release, result)
                    settings.say(f"quarantined {result.path}: {result.reason}")
                else:
                    run.done[result.record.path] = result.record
                    run.met.add(result.environment)
                    on_done(result.record)
        finally:
            _note_environments(run, run.met)


def _agreed_environment(run: _Run, cluster: Cluster, events: Events) -> Environment | None:
    """What every worker must have; None if anything goes."""
    own = own_environment()
    found = first_environment(cluster, events) if cluster.foreign else own
    if run.settings.allow_mixed:
        return None
    if not cluster.foreign:
        return own
    if difference := replace(own, device=found.device).difference(found):
        raise UserError(
            f"the workers at {cluster.address} have {difference} as here: images would differ; "
            "make them the same or allow it with --allow-mixed"
        )
    _require_agreement(run, found)
    return found


def _require_agreement(run: _Run, environment: Environment) -> None:
    """UserError if the release holds shards that were made with something else."""
    if run.settings.allow_mixed or not run.done:
        return
    for earlier in run.state.environments:
        if difference := earlier.difference(environment):
            raise UserError(
                f"{run.release} was not made with what is here: {difference}; go on where it was "
                "begun, name another --out, or mix them with --allow-mixed"
            )


def _note_environments(run: _Run, environments: "Sequence[Environment] | set[Environment]") -> None:
    """Add them to the state file; if nothing was made yet, earlier ones were never used."""
    earlier = run.state.environments if run.done else ()
    every = tuple(distinct([*earlier, *environments]))
    if every != run.state.environments:
        run.state = replace(run.state, environments=every)
        write_state(run.release, run.state)
