"""The commands of a trial: each is printed as it can be copied, run, and not run again."""

import fcntl
import os
import re
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

from cards.trial.log import VERSION, StepLog, seen_at_work, unfinished
from release.commands.command import EXIT_BAD_INPUT, EXIT_INTERRUPTED, say
from release.commands.duration import duration
from release.commands.progress import progress_bar
from release.commands.terminal import printable
from release.errors import redacted
from release.files.commit import sha256_file

LOCK_FILE = ".lock"

MODULES = {  # of the commands that a trial runs
    "build-dataset": "builder.build_dataset",
    "finetune-generator": "generation.finetune_generator",
    "run-study": "classifiers.run_study",
}
QUOTED, SLASHED = re.compile(r'([\\"$`])'), r"\\\1"  # what a shell reads between double quotes


@dataclass(frozen=True)
class Step:
    """One command. title: what it does, for people; words: the command and its arguments.

    shown: whether its standard output is; the page has what a long report says. reads: a file that
    says what it does, and may say more in another run of the trial.
    """

    title: str
    words: tuple[str, ...]
    shown: bool = True
    reads: Path | None = None

    @property
    def line(self) -> str:
        """By which it is known, wherever the environment is."""
        line = shlex.join(self.words)
        return line if self.reads is None else f"{line}{VERSION}{sha256_file(self.reads)[:12]}"

    def option(self, name: str) -> str:
        """What stands behind the option `name`."""
        return self.words[self.words.index(name) + 1]

    @property
    def runnable(self) -> str:
        """For a shell that finds this environment's commands."""
        return shlex.join(self.words)


def path_line() -> str | None:
    """For a shell, which then finds this environment's commands before any others of their names.

    None where the environment has none of them.
    """
    folder = Path(sys.executable).parent
    if not all((folder / name).exists() for name in MODULES):
        return None
    return f'export PATH="{QUOTED.sub(SLASHED, str(folder))}:$PATH"'


def missing_path() -> str | None:
    """`path_line` where a shell as it is would find no such commands, or another's."""
    for name in MODULES:
        ours, found = Path(sys.executable).with_name(name), shutil.which(name)
        if ours.exists() and (found is None or not ours.samefile(found)):
            return path_line()
    return None


@contextmanager
def held(out: Path, *, quiet: bool) -> Iterator[int]:
    """The trial in `out`, for this process and the commands that it starts.

    Yields the lock's descriptor. A command that is given it holds the trial, too: where this
    process alone is killed, the next one waits here until that command has ended. quiet: without
    progress.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait(lock, out, quiet=quiet)
        except OSError:  # a file system without locks
            pass
        yield lock
    finally:
        os.close(lock)


def _wait(lock: int, out: Path, *, quiet: bool) -> None:
    at_work, since = "a command of this trial", ""
    left = unfinished(out)
    if left is not None and left.since is not None:
        at_work = shlex.split(left.line)[0]
        since = f", for {duration(max(0.0, time.time() - left.since) / 3600)} now: {left.title}"
    say(f"{at_work} is still at work in {out}{since}; waiting for its end")
    with progress_bar(1, f"waiting for {at_work}", "command", quiet=quiet) as advance:
        fcntl.flock(lock, fcntl.LOCK_EX)
        advance(1)
    seen_at_work(out)


def run_steps(steps: Sequence[Step], log: StepLog, lock: int, *, quiet: bool) -> None:
    """Run what is not done. SystemExit with the code of the first command that fails.

    quiet: print no more than what goes wrong. lock: see `held`.
    """
    for step in steps:
        if log.is_done(step):
            continue
        if not quiet:
            say("")
            say(f"# {step.title}")
            show(f"$ {step.runnable}")
        log.begin(step)
        started = time.monotonic()
        code = _run(step, lock, quiet=quiet)
        log.end(time.monotonic() - started, done=not code)
        if quiet and code not in (0, EXIT_BAD_INPUT, EXIT_INTERRUPTED):
            show_path()
        if code < 0:
            show(f"ended by signal {-code}, rerun the same command to go on: {step.runnable}")
            raise SystemExit(128 - code)  # as shells count it
        if code not in (0, EXIT_BAD_INPUT, EXIT_INTERRUPTED):  # which have told it in a line
            show(f"stopped at: {step.runnable}")
        if code:
            raise SystemExit(code)


def show_path() -> None:
    """What a shell needs before the commands that are shown, where it does not find them."""
    line = missing_path()
    if line is not None:
        show(f"$ {line}")


def show(command: str) -> None:
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
