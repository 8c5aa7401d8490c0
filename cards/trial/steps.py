"""The commands of a trial: each is printed as it can be copied, run, and not run again."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from release.commands.command import EXIT_INTERRUPTED, say
from release.files.commit import write_atomically

MODULES = {  # of the commands that a trial runs
    "build-dataset": "builder.build_dataset",
    "finetune-generator": "generation.finetune_generator",
    "run-study": "classifiers.run_study",
}


@dataclass(frozen=True)
class Step:
    """One command. title: what it does, for people; words: the command and its arguments."""

    title: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        """For a shell."""
        return shlex.join(self.words)


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


def run_steps(steps: Sequence[Step], log: StepLog, *, quiet: bool) -> None:
    """Run what is not done. SystemExit with the code of the first command that fails.

    quiet: print no more than what goes wrong.
    """
    for step in steps:
        if step.line in log.seconds:
            continue
        if not quiet:
            say("")
            say(f"# {step.title}")
            say(f"$ {step.line}")
        started = time.monotonic()
        code = _run(step, quiet=quiet)
        if code:
            if code != EXIT_INTERRUPTED:
                say(f"stopped at: {step.line}")
            raise SystemExit(code)
        log.note(step, time.monotonic() - started)


def _run(step: Step, *, quiet: bool) -> int:
    """Its exit code. Ctrl-C reaches the command as well, which then ends in its own time."""
    name, *arguments = step.words
    command = [sys.executable, "-m", MODULES[name], *arguments, *(["--json"] if quiet else [])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
