"""Doing jobs on a cluster: which comes next, what failed for good, and how to stop."""

import heapq
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING

from builder.cluster.cluster import Cluster
from builder.cluster.waiting import LOOK_SECONDS, Watch
from builder.cluster.worker import Done, Failure, Job, Terms, run_job
from builder.shards.stopping import stop_run
from release.commands.interrupt import Events
from release.environment import Environment, own_environment
from release.errors import UserError

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed import Future

ATTEMPTS = 3
AHEAD = 3  # shards for each worker: one is written, one sampled, one waits at the scheduler


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; what was in hand is dropped or committed."""


class _Agenda:
    """Jobs not begun: those that can be, best first, and those that wait for their parent.

    Children start when their parent is committed, no barrier between stages; ShardJob.priority
    says why earlier stages come first.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._ready: list[tuple[int, int, Job]] = []
        self._waiting: dict[str, list[Job]] = defaultdict(list)
        self._suspects: list[Job] = []
        self._count = 0
        planned = {job.path for job in jobs}
        for job in jobs:
            if job.after is not None and job.after in planned:
                self._waiting[job.after].append(job)
            else:
                self.add(job)

    def add(self, job: Job) -> None:
        self._count += 1
        heapq.heappush(self._ready, (-job.priority, self._count, job))

    def add_suspect(self, job: Job) -> None:
        """To be tried alone, when all else is done."""
        self._suspects.append(job)

    def release_children(self, path: str) -> None:
        for child in self._waiting.pop(path, []):
            self.add(child)

    def next(self, in_flight: int, window: int) -> Job | None:
        """A job to begin now, with `in_flight` of at most `window` begun already."""
        if self._ready and in_flight < window:
            return heapq.heappop(self._ready)[2]
        return self._suspects.pop() if self._suspects and not in_flight else None


def run_jobs(
    cluster: Cluster, jobs: Sequence[Job], terms_of: Callable[[Job], Terms], events: Events
) -> Iterator[Done | Failure]:
    """Do every job on its terms; yields what was made, and what failed for good, as they come.

    A job waits for the one it comes after, and is left out if that failed. Raises UserError for
    what would stop every job or where no worker is left, Interrupted after Ctrl-C; an error among
    the events ends it likewise.
    """
    agenda = _Agenda(jobs)
    failures: Counter[str] = Counter()
    in_flight: dict[Key, Job] = {}
    watch = Watch(cluster)
    ending: BaseException | None = None  # why no further job is begun
    while True:
        threads = watch.threads()
        window = AHEAD * max(1, threads)
        while ending is None and (job := agenda.next(len(in_flight), window)) is not None:
            terms = terms_of(job)
            # one group of tasks: a new group's first ones do not queue, they overtake those that do
            key = (f"shards-{terms.run}", failures[job.path], job.path)
            future = cluster.submit(run_job, job, terms, key=key, priority=job.priority)
            in_flight[key] = job
            future.add_done_callback(events.put)
        if not in_flight or (ending is not None and not threads):
            break
        try:
            future = events.get(timeout=LOOK_SECONDS)
        except Empty:
            continue
        if future is None or isinstance(future, UserError):
            ending = ending or future or Interrupted()
            for run in {terms_of(job).run for job in in_flight.values()}:
                cluster.run_everywhere(stop_run, run)  # drop what is in hand of this build
            continue
        job = in_flight.pop(future.key)
        result = _result(cluster, future, job)
        if isinstance(result, Done):
            agenda.release_children(job.path)
            yield result
        elif result is not None and ending is None:
            failures[job.path] += 1
            if not _tried_again(cluster, agenda, job, result, failures[job.path]):
                yield result
    if ending is not None:
        raise ending


def first_environment(cluster: Cluster, events: Events) -> Environment:
    """What the first worker of a running cluster has; waits for one if there is none yet."""
    watch = Watch(cluster, patient=True)
    future = cluster.submit(own_environment, key=f"environment/{uuid.uuid4().hex}")
    future.add_done_callback(events.put)
    while True:
        watch.threads()
        with suppress(Empty):
            event = events.get(timeout=LOOK_SECONDS)
            break
    if event is None or isinstance(event, UserError):
        raise event or Interrupted
    try:
        environment: Environment = cluster.result(future)
    except UserError:
        raise
    except Exception as error:  # whatever it is that importing the project there ends in
        raise UserError(
            f"the workers at {cluster.address} cannot run this project: install the same version "
            f"there ({type(error).__name__}: {error})"
        ) from None
    return environment


def _result(cluster: Cluster, future: "Future", job: Job) -> Done | Failure | None:
    from distributed import KilledWorker

    try:
        result: Done | Failure | None = cluster.result(future)
    except KilledWorker as error:
        times = error.allowed_failures + 1
        reason = f"its worker's process ended {times} times while making it (out of memory?)"
        return Failure(job.path, "killed", reason)
    finally:
        future.release()
    return result


def _tried_again(
    cluster: Cluster, agenda: _Agenda, job: Job, failure: Failure, failures: int
) -> bool:
    """Whether the job is given another chance."""
    if failure.kind == "killed":
        # A cluster with settings of its own may hold two shards on one worker, and blame both.
        if not cluster.foreign or failures > 1:
            return False
        agenda.add_suspect(job)
        return True
    if failures >= ATTEMPTS:
        return False
    if failure.kind == "memory":
        cluster.restart(failure.worker)
    agenda.add(job)
    return True
