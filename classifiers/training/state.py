"""Where the training of a classifier keeps its state, to go on from."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.errors import UserError
from release.files.checked_files import read_state, write_state


@dataclass(frozen=True)
class StateFile:
    """Where a training keeps its state, how often, and the key that says which training it is."""

    path: Path
    key: str
    seconds: float = 60.0

    def read(self) -> dict[str, Any] | None:
        """What is kept, None if nothing is; UserError if it is damaged or of another training."""
        if not self.path.is_file():
            return None
        content = read_state(self.path)
        if content.get("key") != self.key:
            raise self.other()
        return content

    def other(self) -> UserError:
        """For a state that is not of this training."""
        return UserError(f"{self.path} is the state of another training; remove it to begin")


class TimedStates:
    """A training's states, written every so many seconds but not at its end, and what time it took.

    file: None where none is kept.
    """

    def __init__(self, file: StateFile | None) -> None:
        self._file = file
        self._before, self._started = 0.0, time.perf_counter()
        self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """That the training has taken, those before an interruption included."""
        return self._before + time.perf_counter() - self._started

    def read(self) -> dict[str, Any] | None:
        content = None if self._file is None else self._file.read()
        if content is None:
            return None
        self._before = float(content["seconds"])
        return _of_now(content)

    def due(self, done: int, steps: int) -> bool:
        if self._file is None or done == steps:
            return False
        if time.monotonic() - self._saved < self._file.seconds:
            return False
        self._saved = time.monotonic()
        return True

    def write(self, content: dict[str, Any]) -> None:
        assert self._file is not None
        key, seconds = self._file.key, self.seconds
        write_state(self._file.path, {**content, "key": key, "seconds": seconds})
        self._saved = time.monotonic()  # writing takes none of the time until the next

    def other(self) -> UserError:
        assert self._file is not None
        return self._file.other()


def _of_now(content: dict[str, Any]) -> dict[str, Any]:
    """A state as the loop writes it, of one that was written when classifiers had their own."""
    if "model" not in content:
        return content
    average = content["average"]
    return {
        "step": content["steps"],
        "modules": {"model": content["model"]},
        "averages": {} if average is None else {"model": average},
        "optimizers": {"model": content["optimizer"]},
        "scaler": None,
        "losses": {},
    }
