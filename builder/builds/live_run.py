"""Several builds on one live cluster, sharing what they have in common."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from builder.builds.build import BuildPlan
from builder.builds.quarantine import clear_quarantine
from builder.builds.run import (
    OnDone,
    ReleaseJobs,
    RunSettings,
    agreed_environment,
    require_same_environment,
    run_builds,
)
from builder.cluster.cluster import Cluster, open_cluster
from builder.cluster.waiting import completed
from builder.cluster.worker import use_one_thread
from builder.state import SyntheticState, read_state, write_state
from release.commands.interrupt import interruptible
from release.environment import Environment, own_environment
from release.errors import UserError
from release.files.commit import write_atomically
from release.files.storage import ReleasePath, read_bytes
from release.layout.shard_commit import committed_records, marker_name, sidecar_name

T = TypeVar("T")


class LiveRun:
    """Builds on a cluster that starts with the first thing there is to do, and stays for the next.

    Its workers keep the model they loaded, so releases of one checkpoint load it once a worker.
    most: processes of a cluster on this machine, at most.
    """

    def __init__(self, stack: ExitStack, settings: RunSettings, most: int) -> None:
        self._stack, self._settings, self._most = stack, settings, most
        self._started: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """Started now, if it was not."""
        if self._started is None:
            opened = open_cluster(self._settings.cluster, self._most, self._settings.say)
            self._started = self._stack.enter_context(opened)
        return self._started

    @cached_property
    def environment(self) -> Environment:
        """What every worker must have; the first one of a running cluster is waited for."""
        if not self._settings.cluster.foreign:
            return own_environment()
        with interruptible() as events:
            agreed = agreed_environment(self.cluster, self._settings, events)
        return agreed or own_environment()

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """function(*arguments) on a worker, one torch thread as for a shard."""
        _ = self.environment  # a running cluster's first worker is waited for without a limit
        client = self.cluster.client
        future = client.submit(_on_one_thread, function, *arguments, pure=False)
        (done,) = completed(self.cluster, [future])
        answer: T = self.cluster.result(done)
        return answer

    def build(self, plans: Sequence[BuildPlan], on_done: OnDone) -> None:
        """Finish every release of `plans`: all their missing shards are one list of jobs.

        Rerun it to go on. UserError if a release was made with other versions or on another kind
        of device, or if a shard kept failing, after all others are made.
        """
        asked = [_release_jobs(plan) for plan in plans]
        outcomes = run_builds(asked, self._settings, on_done, lambda _: nullcontext(self.cluster))
        failed = [
            (plan, failure)
            for plan, outcome in zip(plans, outcomes, strict=True)
            for failure in outcome.quarantined
        ]
        if failed:
            plan, first = failed[0]
            raise UserError(
                f"{len(failed)} shards kept failing; {first.path} in {plan.release}: "
                f"{first.reason}; the others are done: rerun to try again"
            )

    def adopt(self, source: ReleasePath, plan: BuildPlan) -> None:
        """Link into `plan`'s release those of its shards that the release `source` has finished.

        A shard's name holds the hash of all that decides its bytes, so what has the name and the
        fingerprint is the very shard. UserError if either release was made with something else
        than what is here. The marker comes last.
        """
        for release in (source, plan.release):
            earlier = read_state(release, SyntheticState)
            environments = earlier.environments if earlier else ()
            require_same_environment(release, environments, self.environment, self._settings)
        clear_quarantine(plan.release)
        write_state(plan.release, replace(plan.state, environments=(self.environment,)))
        have = committed_records(plan.release, plan.shards)
        offered = committed_records(source, plan.shards)
        for path in (path for path in offered if path not in have):
            names = [path, sidecar_name(path), marker_name(path)]
            if offered[path].rejections_sha256:
                names.insert(0, offered[path].rejections_path)
            for name in names:
                _link(source / name, plan.release / name)


@contextmanager
def live_run(settings: RunSettings, most: int) -> Iterator[LiveRun]:
    """A LiveRun whose cluster ends with it."""
    with ExitStack() as stack:
        yield LiveRun(stack, settings, most)


def _release_jobs(plan: BuildPlan) -> ReleaseJobs:
    """With what its release has noted since it was planned, adopted shards' environment."""
    standing = read_state(plan.release, SyntheticState)
    environments = standing.environments if standing else ()
    return replace(plan.release_jobs(), state=replace(plan.state, environments=environments))


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
        with temporary.open("rb") as file:  # its bytes are to outlast what the marker says of them
            os.fsync(file.fileno())
    temporary.replace(target)
