"""Writing a shard while its worker samples the next one, in bounded memory.

A shard that is sampled gives its place to the next and is written in the thread it has, one shard
at a time: a worker holds the encoded images of at most two shards, one being written and one being
sampled, or waiting for its turn. The sampler stays one thread. What writing raises is raised in the
shard's own task, as if nothing ran beside it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_let_next_begin: ContextVar[Callable[[], None] | None] = ContextVar("let_next_begin", default=None)
_turn = threading.Lock()


@contextmanager
def next_shard_begins_by(let_next_begin: Callable[[], None]) -> Iterator[None]:
    """Within, a shard that is sampled calls `let_next_begin`; without, nothing runs beside it."""
    token = _let_next_begin.set(let_next_begin)
    try:
        yield
    finally:
        _let_next_begin.reset(token)


@contextmanager
def beside_next_shard() -> Iterator[None]:
    """What follows is done while the next shard is sampled; waits until the last one is written."""
    let_next_begin = _let_next_begin.get()
    with _turn:
        if let_next_begin is not None:
            let_next_begin()
        yield
