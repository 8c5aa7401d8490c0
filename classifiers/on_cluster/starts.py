"""How often a training was begun without getting further: what ends one that kills its worker.

A worker that dies costs a requeue, however often, as long as the training's state moves on between
two deaths. NAME.starts beside the result counts the starts from one and the same state; a training
that ends otherwise than with its process removes it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from release.errors import UserError
from release.files.commit import write_atomically

MOST_STARTS = 3  # from the same state


class ProcessLostError(Exception):
    """A training's process ended without a word, as by the kernel for want of memory."""


class AttemptEndedError(ProcessLostError):
    """This node's part was told to end, since that of another one failed or was lost."""


@contextmanager
def counted_start(out: Path) -> Iterator[None]:
    """Begin the training whose result is `out`; UserError if it was begun in vain too often."""
    record, state = starts_file(out), _state(out)
    begun = _starts(record, state)
    if begun >= MOST_STARTS:
        record.unlink(missing_ok=True)
        raise UserError(
            f"the training {out} ended its process {begun} times {_where(out, state)} (out of "
            "memory?): give it more memory, a smaller micro_batch, or keep states more often"
        )
    write_atomically(record, json.dumps({"state": state, "starts": begun + 1}).encode())
    try:
        yield
    except ProcessLostError:
        raise
    except BaseException:
        record.unlink(missing_ok=True)
        raise
    record.unlink(missing_ok=True)


def starts_file(out: Path) -> Path:
    """Where the starts of the training whose result is `out` are counted."""
    return out.with_suffix(".starts")


def _state(out: Path) -> list[int] | None:
    """What tells the training's state from the one before: each is a new file."""
    try:
        found = out.with_suffix(".state").stat()
    except FileNotFoundError:
        return None
    return [found.st_mtime_ns, found.st_size]


def _starts(record: Path, state: list[int] | None) -> int:
    """From `state`, so far; a record that cannot be read counts as none."""
    try:
        before = json.loads(record.read_bytes())
        return int(before["starts"]) if before["state"] == state else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _where(out: Path, state: list[int] | None) -> str:
    if state is None:
        return "before it kept a state"
    return f"without a new state after {out.with_suffix('.state').name}"
