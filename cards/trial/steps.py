"""The commands of a trial: each is printed as it can be copied, run, and not run again."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from release.commands.command import EXIT_BAD_INPUT, EXIT_INTERRUPTED, say
from release.commands.terminal import printable
from release.errors import redacted
from release.files.commit import write_atomically

LOCK_FILE = ".lock"

MODULES = {  # of the commands that a trial runs
    "build-dataset": "builder.build_dataset",
    "finetune-generator": "generation.finetune_generator",
    "run-study": "classifiers.run_study",
}


@dataclass(frozen=True)
class Step:
    """One command. title: what it does, for people; words: the command and its arguments.

    shown: whether its standard output is; the page has what a long report says.
    """

    title: str
    words: tuple[str, ...]
    shown: bool = True

    @property
    def line(self) -> str:
        """By which it is known, wherever the environment is."""
        return shlex.join(self.words)

    @property
    def runnable(self) -> str:
        """For a shell: with the command's place where it would find none, or another's."""
        name, *arguments = self.words
        ours, found = Path(sys.executable).with_name(name), shutil.which(name)
        if ours.exists() and (found is None or not ours.samefile(found)):
            name = str(ours)
        return shlex.join((name, *arguments))


class StepLog:
    """Which commands of a folder's trial are done, and the seconds that each took."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        if path.is_file():
            self.seconds = json.loads(path.read_bytes())

    def note(self, step: Step, seconds: float) -> None:
        self.seconds[step.line] = round(self.seconds.get(step.line, 0.0) + seconds, 1)
        write_atomically(self._path, json.dumps(self.seconds, indent=1).encode())


@contextmanager
def held(out: Path) -> Iterator[int]:
    """The trial in `out`, for this process and the commands that it starts.

    Yields the lock's descriptor. A command that is given it holds the trial, too: where this
    process alone is killed, the next one waits here until that command has ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"a command of this trial is still at work in {out}: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield lock
    finally:
        os.close(lock)


def run_steps(steps: Sequence[Step], log: StepLog, lock: int, *, quiet: bool) -> None:
    """Run what is not done. SystemExit with the code of the first command that fails.

    quiet: print no more than what goes wrong. lock: see `held`.
    """
    for step in steps:
        if step.line in log.seconds:
            continue
        if not quiet:
            say("")
            say(f"# {step.title}")
            _show(f"$ {step.runnable}")
        started = time.monotonic()
        code = _run(step, lock, quiet=quiet)
        if code < 0:
            _show(f"ended by signal {-code}, rerun the same command to go on: {step.runnable}")
            raise SystemExit(128 - code)  # as shells count it
        if code not in (0, EXIT_BAD_INPUT, EXIT_INTERRUPTED):  # which have told it in a line
            _show(f"stopped at: {step.runnable}")
        if code:
            raise SystemExit(code)
        log.note(step, time.monotonic() - started)


def _show(command: str) -> None:
    """A line with a command in it, whose spaces are part of it."""
    print(printable(redacted(command)), file=sys.stderr, flush=True)


def _run(step: Step, lock: int, *, quiet: bool) -> int:
    """Its exit code, below 0 for a signal. quiet: its document is printed if it fails.

    Ctrl-C reaches the command as well, which then ends in its own time; SIGTERM is handed on.
    """
    name, *arguments = step.words
    command = [sys.executable, "-m", MODULES[name], *arguments, *(["--json"] if quiet else [])]
    shown = step.shown and not quiet
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(command, stdout=None if shown else told, pass_fds=(lock,)) as process,
        _handing_on(process),
    ):
        code = _code(process)
        if code and quiet:
            told.seek(0)
            print(told.read().decode(), end="", flush=True)
        return code


def _code(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


@contextmanager
def _handing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
