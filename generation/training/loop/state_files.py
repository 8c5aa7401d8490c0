"""The state of a training on disk: the last one, and the one before it.

Each is a file as `torch.save` writes it, a ZIP archive, which carries a checksum of each part.
"""

import pickle
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from generation.networks.finite import require_finite, tensors_in
from release.errors import UserError
from release.files.commit import write_stream_atomically

if TYPE_CHECKING:
    import pyarrow as pa

STATE_FILE = "state.pt"
PREVIOUS_FILE = "state-previous.pt"
DAMAGE = (  # what zipfile and torch raise for other files, for parts of one and for flipped bits
    *(RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(zipfile.BadZipFile, pickle.UnpicklingError),
)


class TrainingStates:
    """What `folder` holds of a training's states. A kill or a full disk costs the last at most.

    key: which training they are of. save_every: steps between two.
    """

    def __init__(self, folder: Path, key: str = "", save_every: int = 1) -> None:
        self._folder, self._key, self._save_every = folder, key, save_every
        self._last, self._previous = folder / STATE_FILE, folder / PREVIOUS_FILE
        self._damaged = False

    def due(self, done: int, steps: int) -> bool:
        """At every `save_every` steps, and at the last."""
        return done == steps or done % self._save_every == 0

    def other(self) -> UserError:
        """For a state that is not of this training."""
        return UserError(f"{self._folder} holds the state of another training; name another --out")

    def write(self, content: dict[str, Any]) -> None:
        """Durable when it returns. While it writes, the state before it is the one there is.

        UserError if a number in it is not finite.
        """
        require_finite(tensors_in(content), f"the training at step {content['step']}")
        if self._last.exists() and not self._damaged:
            self._last.replace(self._previous)
        keyed = {**content, "key": self._key}
        write_stream_atomically(self._last, lambda stream: _save(keyed, stream))
        self._damaged = False

    def read(self) -> dict[str, Any] | None:
        """The last state that is whole, None where there is none.

        UserError, naming the files, if all there are is damaged, or if it is of another training.
        """
        found = [path for path in (self._last, self._previous) if path.is_file()]
        complaints = []
        for path in found:
            try:
                content = _load(path)
            except DAMAGE as error:
                complaints.append(f"{path} is cut or damaged ({first_line(error)})")
                self._damaged = self._damaged or path == self._last
                continue
            for complaint in complaints:
                print(f"{complaint}: going on from {path.name}", file=sys.stderr)
            if content.pop("key", self._key) != self._key:  # the first states did not say
                raise self.other()
            return content
        if not found:
            return None
        raise UserError(
            f"{'; '.join(complaints)}: no state is left to go on from; remove "
            f"{' and '.join(path.name for path in found)} to train from the start"
        )


def saved_step(folder: Path) -> int:
    """From which step a training in `folder` goes on: of its last whole state, 0 without one."""
    for path in (folder / STATE_FILE, folder / PREVIOUS_FILE):
        if path.is_file():
            with suppress(*DAMAGE):
                return int(_load(path)["step"])
    return 0


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _load(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        wrong = archive.testzip()  # torch reads without a look at the checksums
    if wrong is not None:
        raise zipfile.BadZipFile(f"{wrong} does not fit its checksum")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


class _Sink:
    """A stream that remembers why it took no more: torch's own error does not say it."""

    def __init__(self, stream: "pa.NativeFile") -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, content: memoryview) -> int:
        try:
            return int(self._stream.write(content))
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._stream.flush()


def _save(content: dict[str, Any], stream: "pa.NativeFile") -> None:
    sink = _Sink(stream)
    try:
        torch.save(content, sink)  # type: ignore[arg-type]
    except RuntimeError:
        if sink.failure is None:
            raise
        raise sink.failure from None
