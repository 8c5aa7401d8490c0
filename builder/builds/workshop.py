"""Several releases built on one live cluster, sharing what they have in common."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from builder.builds.build import BuildPlan, write_release
from builder.builds.growth import keep_loadable, known_records
from builder.builds.quarantine import clear_quarantine, quarantine_shard
from builder.builds.run import Outcome
from builder.cluster.cluster import Cluster, ClusterOptions, open_cluster
from builder.cluster.engine import first_environment, run_jobs
from builder.cluster.waiting import completed
from builder.cluster.worker import Failure, Terms, WrappedJob, use_one_thread
from builder.shards.shard import ShardJob
from builder.standing.state import STATE_FILE, write_state
from release.commands.interrupt import interruptible
from release.errors import UserError
from release.files.commit import sha256_file, write_atomically
from release.files.storage import ReleasePath, read_bytes
from release.layout.environment import Environment, own_environment
from release.layout.manifest import ShardRecord
from release.layout.markers import committed_records, marker_name, sidecar_name

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")


@dataclass(frozen=True)
class _Errand(WrappedJob):
    """A shard of one of the releases below `folder`, whose state file workers must see."""

    folder: Path

    @property
    def release(self) -> ReleasePath:
        return self.folder


class _Site:
    """One of the releases: its jobs, which of them are done, and with what they are made."""

    def __init__(self, plan: BuildPlan, environment: Environment) -> None:
        self.plan, self._environment = plan, environment
        self.jobs = plan.jobs()
        self.done = known_records(plan.release, self.jobs)

    def missing(self) -> list[ShardJob]:
        return [job for job in self.jobs if job.path not in self.done]

    def finish_if_whole(self) -> None:
        """README and manifest as soon as the last shard is there."""
        if len(self.done) == len(self.jobs):
            records = tuple(self.done[job.path] for job in self.jobs)
            write_release(self.plan, Outcome(records, (), (), (self._environment,)))


class Workshop:
    """A cluster that starts with the first thing there is to do, and stays for all that follows.

    Its workers keep the model they loaded, so releases of one checkpoint load it once a worker.
    folder: holds the releases and a state file of its own.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        options: ClusterOptions,
        most: int,
        say: Callable[[str], None],
    ) -> None:
        self._stack, self._folder, self._say = stack, folder.absolute(), say
        self._options, self._most = options, most
        self._started: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """Started now, if it was not."""
        if self._started is None:
            opened = open_cluster(self._options, self._most, self._say)
            self._started = self._stack.enter_context(opened)
        return self._started

    @cached_property
    def environment(self) -> Environment:
        """What every worker must have: of a running cluster, what its first one has.

        UserError if that has other versions than this process, which plans and finishes.
        """
        own = own_environment()
        if not self._options.foreign:
            return own
        with interruptible() as events:
            found = first_environment(self.cluster, events)
        if difference := replace(own, device=found.device).difference(found):
            raise UserError(
                f"the workers at {self.cluster.address} have {difference} as here: images would "
                "differ; make them the same"
            )
        return found

    @property
    def client(self) -> "Client":
        return self.cluster.client

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """function(*arguments) on a worker, one torch thread as for a shard."""
        _ = self.environment  # a running cluster's first worker is waited for without a limit
        future = self.client.submit(_on_one_thread, function, *arguments, pure=False)
        (done,) = completed(self.cluster, [future])
        answer: T = self.cluster.result(done)
        return answer

    def build(self, plans: Sequence[BuildPlan], on_done: Callable[[ShardRecord], None]) -> None:
        """Finish every release of `plans`: all their missing shards are one list of jobs.

        Rerun it to go on. UserError if a release was made with other versions or on another kind
        of device, or if a shard kept failing, after all others are made.
        """
        for plan in plans:
            _take_up(plan, self.environment)
        sites = [_Site(plan, self.environment) for plan in plans]
        for site in sites:
            for record in site.done.values():
                on_done(record)
            keep_loadable(site.plan.release, [job.path for job in site.missing()])
            site.finish_if_whole()
        owner = {job.path: site for site in sites for job in site.missing()}
        errands = [_Errand(job, self._folder) for site in sites for job in site.missing()]
        if len(owner) < len(errands):
            raise ValueError("two of the releases would make the same shard: share their parent")
        if errands:
            failures = self._run(errands, owner, on_done)
            if failures:
                raise UserError(
                    f"{len(failures)} shards kept failing; {failures[0].path} in "
                    f"{owner[failures[0].path].plan.release}: {failures[0].reason}; "
                    "the others are done: rerun to try again"
                )

    def adopt(self, source: ReleasePath, plan: BuildPlan) -> int:
        """Link into `plan`'s release those of its shards that the release `source` has finished.

        A shard's name holds the hash of all that decides its bytes, so what has the name and the
        fingerprint is the very shard. Returns how many there were. The marker comes last.
        """
        _take_up(plan, self.environment)
        have = committed_records(plan.release, plan.shards)
        offered = committed_records(source, plan.shards)
        wanted = [path for path in offered if path not in have]
        for path in wanted:
            names = [path, sidecar_name(path), marker_name(path)]
            if offered[path].rejections_sha256:
                names.insert(0, offered[path].rejections_path)
            for name in names:
                _link(source / name, plan.release / name)
        return len(wanted)

    def _run(
        self,
        errands: Sequence[_Errand],
        owner: dict[str, _Site],
        on_done: Callable[[ShardRecord], None],
    ) -> list[Failure]:
        failures = []
        state = sha256_file(self._folder / STATE_FILE)
        terms = Terms(uuid.uuid4().hex, self.environment, state)
        with interruptible() as events:
            for result in run_jobs(self.cluster, errands, terms, events):
                if isinstance(result, Failure):
                    failures.append(result)
                    quarantine_shard(owner[result.path].plan.release, result)
                    continue
                site = owner[result.record.path]
                site.done[result.record.path] = result.record
                on_done(result.record)
                site.finish_if_whole()
        return failures


@contextmanager
def workshop(
    folder: Path,
    options: ClusterOptions,
    most: int,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Workshop]:
    """A Workshop on the cluster that `options` name, of at most `most` processes if on this
    machine; `say` gets remarks."""
    with ExitStack() as stack:
        yield Workshop(stack, folder, options, most, say)


def _take_up(plan: BuildPlan, environment: Environment) -> None:
    """Say what the folder is going to hold, and with what it is made: that environment alone."""
    for earlier in plan.state.environments:
        if difference := earlier.difference(environment):
            raise UserError(
                f"{plan.release} was not made with what is here: {difference}; go on where it was "
                "begun, or name another --out"
            )
    clear_quarantine(plan.release)
    write_state(plan.release, replace(plan.state, environments=(environment,)))


def _on_one_thread(function: Callable[..., T], *arguments: object) -> T:
    use_one_thread()
    return function(*arguments)


def _link(source: ReleasePath, target: ReleasePath) -> None:
    """A second name for the file; a copy where the file system has no such links."""
    if not (isinstance(source, Path) and isinstance(target, Path)):
        write_atomically(target, read_bytes(source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
