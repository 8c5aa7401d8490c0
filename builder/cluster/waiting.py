"""Waiting for what workers do: not for ever, and not in silence, where no worker is left."""

import time
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from builder.cluster.cluster import Cluster
from release.errors import UserError

if TYPE_CHECKING:
    from distributed import Future

LOOK_SECONDS = 5.0  # how often to look for workers that came or went
OWN_LIMIT_SECONDS = 180.0  # a worker of this machine starts within 30 s, also on a busy one
FOREIGN_LIMIT_SECONDS = 600.0  # a batch system needs a while to start another job


class Watch:
    """Looks after the workers of a cluster while their results are waited for.

    Workers of this machine that ended for good are started again. patient: wait for a first worker
    without a limit, since a batch system may start it tomorrow.
    """

    def __init__(self, cluster: Cluster, *, patient: bool = False) -> None:
        self._cluster = cluster
        self._limit = FOREIGN_LIMIT_SECONDS if cluster.foreign else OWN_LIMIT_SECONDS
        self._patient = patient
        self._looked = float("-inf")
        self._threads = 0
        self._none_since: float | None = None

    def threads(self) -> int:
        """How many tasks can be done at once, as seen at most LOOK_SECONDS ago.

        UserError where no worker came back within the limit.
        """
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        return self._threads

    def _look(self) -> None:
        self._cluster.revive()
        self._threads, self._looked = self._cluster.threads(), time.monotonic()
        if self._threads:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = self._looked
            if self._cluster.foreign:
                limit = "" if self._patient else f" at most {self._limit:g} s"
                self._cluster.say(f"no workers at {self._cluster.address}: waiting{limit} for one")
        elif not self._patient and self._looked - self._none_since > self._limit:
            raise UserError(
                f"no worker came to {self._cluster.address} within {self._limit:g} s: what is "
                "finished is kept; start workers and rerun the same command to go on"
            )


def completed(cluster: Cluster, futures: Sequence["Future"]) -> Iterator["Future"]:
    """Each of `futures` when it is done; UserError where no worker is left to do the others."""
    done: SimpleQueue[Future] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    watch, left = Watch(cluster), len(futures)
    while left:
        watch.threads()
        try:
            future = done.get(timeout=LOOK_SECONDS)
        except Empty:
            continue
        left -= 1
        yield future
