"""What a command needs around it: a home folder, streams that take any text, paths without ~."""

import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from release.errors import UserError

TILDE = re.compile(r"(--[A-Za-z][\w-]*=)?(~[^/]*(?:/.*)?)")


def settle_in() -> None:
    """Make this process one in which libraries find a home and any text can be printed."""
    _ensure_home()
    sys.stdout, sys.stderr = _forgiving(sys.stdout), _forgiving(sys.stderr)


def share_cores() -> None:
    """Have torch's threads sleep, not spin, while they wait for each other; before its import.

    Beside other work on 2 cores (load 8 to 12) a step of finetune-generator took 22 s spinning and
    4.4 s asleep, train-classifier of 25 steps 96 and 98 s spinning, 41 and 23 s asleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class _Pipe(io.FileIO):
    """A pipe whose reader may go, as `head` does: what follows is thrown away, and work goes on."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            return len(memoryview(content).cast("B"))


def _forgiving(stream: TextIO) -> TextIO:
    """`stream`, which takes any text even where it knows ASCII only, and no reader's end amiss."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    if not _is_pipe(stream):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )


def _is_pipe(stream: TextIO) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # closed, or no file's
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def expanded(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the home folder in place of a ~ that starts one, or an --option=~/value.

    Shells do that for an argument of its own alone. UserError for bytes that are no text: what
    names a file is recorded in files that are text.
    """
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= c <= "\udfff" for c in argument):
            raise UserError(f"{argument!r} is no text in UTF-8: rename what has that name")
    found = [(argument, TILDE.fullmatch(argument)) for argument in arguments]
    return [
        (match[1] or "") + os.path.expanduser(match[2]) if match else argument  # noqa: PTH111
        for argument, match in found
    ]


def _ensure_home() -> None:
    """Where the system knows no home folder, as for a user without an entry: one below /tmp.

    Dask's dashboard, the Hub's client and our own caches would fail, or write to a folder "~".
    """
    try:
        Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir()) / f"synthetic-imagenet-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise UserError(f"no home folder, and {home} is another's: set HOME") from None
        os.environ["HOME"] = str(home)
        print(f"no home folder: caches go to {home}; set HOME for another", file=sys.stderr)
