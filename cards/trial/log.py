"""What a trial's folder says of its commands: which are done, which is not, what each took."""

import json
import time
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from release.errors import UserError
from release.files.commit import write_atomically

T = TypeVar("T")

VERSION = "  # "  # behind a command, the hash of the file that it reads
DONE_FILE, UNFINISHED_FILE = "commands.json", "unfinished.json"


class Command(Protocol):
    """A command of a trial. line: by which it is known; title: what it does, for people."""

    @property
    def line(self) -> str: ...
    @property
    def title(self) -> str: ...


class Unfinished(BaseModel):
    """A command that is at work, or was ended before it was done.

    seconds: of its earlier runs. since: when the run began that has not ended, as Unix time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: str
    title: str
    seconds: float
    since: float | None


class StepLog:
    """Seconds of the commands in the folder `out`, all runs of each together.

    A run that was killed, or outlived a trial that was, says no end itself: it counts up to the
    last file that was written in the folder.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.seconds: dict[str, float] = _read(out / DONE_FILE, dict[str, float]) or {}
        self._unfinished = unfinished(out)
        left = self._unfinished
        if left is not None and left.since is not None:
            self._ended(max(0.0, _last_written(out) - left.since))

    @property
    def unfinished(self) -> Unfinished | None:
        """The command that was ended early."""
        return self._unfinished

    def is_done(self, command: Command) -> bool:
        """Whether it is, with what its file says."""
        return command.line in self.seconds

    def total(self, command: Command) -> float:
        """Seconds of it with whatever its file said."""
        return sum(s for line, s in self.seconds.items() if bare(line) == bare(command.line))

    def begin(self, step: Command) -> None:
        """A run of `step` begins."""
        left = self._unfinished
        before = left.seconds if left is not None and left.line == step.line else 0.0
        self._note(Unfinished(line=step.line, title=step.title, seconds=before, since=time.time()))

    def end(self, seconds: float, *, done: bool) -> None:
        """The run that began has ended after `seconds`; done: and what it was to do is."""
        ended = self._ended(seconds)
        if done:
            self.seconds[ended.line] = round(ended.seconds, 1)
            write_atomically(self._out / DONE_FILE, json.dumps(self.seconds, indent=1).encode())
            (self._out / UNFINISHED_FILE).unlink(missing_ok=True)
            self._unfinished = None

    def _ended(self, seconds: float) -> Unfinished:
        assert self._unfinished is not None
        total = self._unfinished.seconds + seconds
        ended = self._unfinished.model_copy(update={"seconds": total, "since": None})
        self._note(ended)
        return ended

    def _note(self, now: Unfinished) -> None:
        self._unfinished = now
        write_atomically(self._out / UNFINISHED_FILE, now.model_dump_json().encode())


def bare(line: str) -> str:
    """A command's line without the hash of the file that it reads."""
    return line.partition(VERSION)[0]


def unfinished(out: Path) -> Unfinished | None:
    """The command of the trial in `out` that is at work or was ended early."""
    return _read(out / UNFINISHED_FILE, Unfinished)


def seen_at_work(out: Path) -> None:
    """The command in `out` was at work until now."""
    if (out / UNFINISHED_FILE).exists():
        (out / UNFINISHED_FILE).touch()


def _last_written(out: Path) -> float:
    """Unix time of the last change to a file of the folder."""
    return max(path.lstat().st_mtime for path in out.rglob("*") if not path.is_dir())


def _read(path: Path, kind: type[T]) -> T | None:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} is damaged: remove it; commands that are done then run again, in seconds"
        ) from None
