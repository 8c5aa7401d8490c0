"""Ctrl-C during a build: once stops it cleanly, twice ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any

from release.commands.command import EXIT_INTERRUPTED
from release.errors import UserError

# What the client waits for: a future that is done, None for Ctrl-C, an error that ends the build.
# SimpleQueue's put is safe inside a signal handler.
Events = SimpleQueue[Any]
_listening: list[Events] = []
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a batch system sends the second before its time is up


@contextmanager
def interruptible() -> Iterator[Events]:
    """The first signal puts None in the queue, the second ends this process and its workers."""
    events: Events = SimpleQueue()
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal stopping
        if stopping:
            os.write(2, b"ended at once: rerun the same command to go on\n")
            os._exit(EXIT_INTERRUPTED)
        stopping = True
        os.write(2, b"stopping after the batch in hand; Ctrl-C again ends at once\n")
        events.put(None)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    _listening.append(events)
    try:
        yield events
    finally:
        _listening.remove(events)
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_builds(reason: UserError) -> None:
    """End what this process builds: the shards in hand are dropped, `reason` is raised."""
    for events in list(_listening):
        events.put(reason)
