"""Doing trainings on a Dask cluster, side by side, whatever happens to its workers.

A training of one node is one Dask task, which Dask hands to another worker when its own is lost.
One of several nodes is a task for each, pinned to workers that are free at once; where one is lost
the others are told to end, and all begin anew. Either goes on from the training's last state.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder.cluster import waiting
from builder.cluster.cluster import Cluster
from builder.cluster.waiting import Watch
from classifiers.on_cluster.processes import (
    Place,
    Team,
    Training,
    end_attempt,
    hold_store,
    perform,
)
from classifiers.on_cluster.shares import forget_share, share_done
from classifiers.on_cluster.starts import AttemptEndedError, ProcessLostError, starts_file
from release.errors import UserError

if TYPE_CHECKING:
    from distributed import Future

OnShare = Callable[[Training, float], None]
GPU = "GPU"  # the resource that workers with several state: dask worker --resources GPU=4


def perform_trainings(
    cluster: Cluster, trainings: Sequence[Training], team: Team, on_share: OnShare
) -> None:
    """Do every training that no earlier call finished; rerun it to go on.

    on_share gets the share of a training that is done: ever more of it, and 1 once, when its result
    is there.
    A lost worker costs a requeue, however often, while the training's state moves on; a running
    cluster without workers is waited for without a limit, since a batch system starts the next one
    when it can. Raises UserError in the end if some failed, when all others are done.
    """
    missing = {}
    for training in {training.path: training for training in trainings}.values():
        starts_file(training.path).unlink(missing_ok=True)  # a person decided to try again
        forget_share(training.path)  # of a call that was killed
        if training.finished:
            on_share(training, 1)
        else:
            missing[training.path] = training
    failures = _Trainer(cluster, team, missing).run(on_share)
    if failures:
        path, reason = next(iter(failures.items()))
        raise UserError(
            f"{len(failures)} of {len(missing)} trainings failed; {path}: {reason[:400]}; "
            "the others are done: rerun to try again"
        )


@dataclass
class _Attempt:
    """A training begun. workers: those of its nodes by address, none if Dask may choose."""

    name: str
    training: Training
    workers: tuple[str, ...]
    running: "dict[str, Future]" = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    lost: bool = False
    ending: bool = False


class _Trainer:
    """What is to be trained, what is being trained, and what failed (why, by path)."""

    def __init__(self, cluster: Cluster, team: Team, missing: dict[Path, Training]) -> None:
        self._cluster, self._team = cluster, team
        self._undone = set(missing)
        awaited = {path for training in missing.values() for path in training.after}
        # first those that others wait for
        ordered = sorted(missing.values(), key=lambda training: training.path not in awaited)
        self._waiting = [t for t in ordered if self._waits(t)]
        self._ready = [t for t in ordered if not self._waits(t)]
        self._attempts: dict[str, _Attempt] = {}
        self._events: SimpleQueue[Future] = SimpleQueue()
        self._failures: dict[Path, str] = {}
        self._shares: dict[Path, float] = {}
        self._told = False
        self._watch = Watch(cluster, patient=cluster.foreign)

    def run(self, on_share: OnShare) -> dict[Path, str]:
        """Why trainings failed, by path, once there is nothing left to do."""
        resources = self._resources() if self._ready and self._team.size > 1 else {}
        while self._ready or self._attempts:
            self._begin_what_can(resources)
            self._watch.threads()
            with suppress(Empty):
                self._note(self._events.get(timeout=waiting.LOOK_SECONDS))
            if self._team.nodes > 1:
                self._end_where_lost()
            for attempt in list(self._attempts.values()):
                if attempt.running:
                    self._show(attempt.training, on_share)
                    continue
                del self._attempts[attempt.name]
                self._settle(attempt, on_share)
        return self._failures

    def _show(self, training: Training, on_share: OnShare) -> None:
        """How far it is, unless it lost its worker and was further before."""
        share = share_done(training.path)
        if self._shares.get(training.path, 0) < share < 1:
            self._shares[training.path] = share
            on_share(training, share)

    def _resources(self) -> dict[str, float]:
        """What a node's task holds: GPUs, where workers state any. UserError if none has enough."""
        while not self._watch.threads():
            time.sleep(waiting.LOOK_SECONDS)
        stated = [own[GPU] for own in self._cluster.resources().values() if GPU in own]
        needed = self._team.processes
        if stated and max(stated) < needed:
            raise UserError(
                f"no worker at {self._cluster.address} states {needed} GPUs, one for each process "
                f"of a training, but {max(stated):g} at most: start workers that see {needed} with "
                f"--resources GPU={needed}, or give --processes {max(stated):g}"
            )
        return {GPU: float(needed)} if stated else {}

    def _begin_what_can(self, resources: dict[str, float]) -> None:
        while self._ready:
            workers = self._free_workers(resources) if self._team.nodes > 1 else ()
            if workers is None:
                self._tell_of_waiting()
                return
            self._begin(self._ready.pop(0), workers, resources)

    def _tell_of_waiting(self) -> None:
        """Once, where not even the first training can begin."""
        if not self._attempts and not self._told:
            self._told = True
            self._cluster.say(
                f"waiting for {self._team.nodes} workers at {self._cluster.address} that are free "
                "at once, as --nodes asks"
            )

    def _free_workers(self, resources: dict[str, float]) -> tuple[str, ...] | None:
        """As many as a training has nodes, if there are so many now."""
        busy = {address for attempt in self._attempts.values() for address in attempt.workers}
        free = [
            address
            for address, stated in self._cluster.resources().items()
            if address not in busy and all(stated.get(k, 0) >= v for k, v in resources.items())
        ]
        return tuple(free[: self._team.nodes]) if len(free) >= self._team.nodes else None

    def _begin(
        self, training: Training, workers: tuple[str, ...], resources: dict[str, float]
    ) -> None:
        attempt = _Attempt(f"perform-{uuid.uuid4().hex}", training, workers)
        self._attempts[attempt.name] = attempt
        places: list[tuple[str | None, Place | None]] = [(None, None)]
        if workers:
            host = urlsplit(workers[0]).hostname or ""
            held = self._cluster.run_on(
                workers[:1], hold_store, attempt.name, host, self._team.size
            )
            if workers[0] not in held:
                attempt.lost = True
                return
            port = held[workers[0]]
            places = [(w, Place(attempt.name, i, host, port)) for i, w in enumerate(workers)]
        for number, (worker, place) in enumerate(places):
            future = self._cluster.submit(
                *(perform, training, self._team, place),
                key=f"{attempt.name}-{number}",
                resources=resources,
                worker=worker,
            )
            attempt.running[str(future.key)] = future
            future.add_done_callback(self._events.put)

    def _note(self, future: "Future") -> None:
        """A node's part is over; if it failed, so is that of the others."""
        name = str(future.key).rpartition("-")[0]
        attempt = self._attempts.get(name)
        if attempt is None or attempt.running.pop(str(future.key), None) is None:
            return  # given up before
        if future.status == "error":
            attempt.errors.append(future.exception())
            self._end(attempt)
        else:
            self._cluster.result(future)  # raises where the scheduler is gone

    def _end_where_lost(self) -> None:
        """Give up attempts of which a node is gone: Dask would wait for that very worker."""
        here = self._cluster.resources().keys()
        for attempt in self._attempts.values():
            gone = [w for w in attempt.workers if w not in here]
            if not gone:
                continue
            for number, worker in enumerate(attempt.workers):
                future = attempt.running.get(f"{attempt.name}-{number}")
                if worker in gone and future is not None:
                    attempt.lost = True
                    del attempt.running[str(future.key)]
                    future.cancel()
            if attempt.lost or attempt.errors:
                attempt.lost = True
                self._end(attempt)

    def _end(self, attempt: _Attempt) -> None:
        if attempt.workers and not attempt.ending:
            attempt.ending = True
            self._cluster.run_on(attempt.workers, end_attempt, attempt.name)

    def _settle(self, attempt: _Attempt, on_share: OnShare) -> None:
        """The training is done, has failed or is to be begun anew."""
        from distributed import KilledWorker

        self._end(attempt)
        training, errors = attempt.training, attempt.errors
        refused = [error for error in errors if isinstance(error, UserError)]
        own = [error for error in errors if not isinstance(error, AttemptEndedError)]
        lost = attempt.lost or any(isinstance(e, KilledWorker | ProcessLostError) for e in own)
        if not errors and not lost:
            on_share(training, 1)
            self._release(training)
        elif lost and not refused:
            self._ready.insert(0, training)
        else:
            error = (refused or own or errors)[0]
            self._fail(training, " ".join(str(error).split()) or type(error).__name__)

    def _waits(self, training: Training) -> bool:
        return not self._undone.isdisjoint(training.after)

    def _release(self, training: Training) -> None:
        """What waits for it alone can begin."""
        self._undone.discard(training.path)
        self._ready += [t for t in self._waiting if not self._waits(t)]
        self._waiting = [t for t in self._waiting if self._waits(t)]

    def _fail(self, training: Training, reason: str) -> None:
        """So does, in turn, what waits for it."""
        self._failures[training.path] = reason
        forget_share(training.path)
        followers = [t for t in self._waiting if training.path in t.after]
        self._waiting = [t for t in self._waiting if training.path not in t.after]
        for follower in followers:
            self._fail(follower, f"it needs {training.path}, which failed: {reason}")
