"""kill -9 of a command, all its processes at once, at its n-th write operation.

Every process of the command installs hooks that count writes below chosen folders: files opened for
writing (before, and again once they are open and empty), renamed, deleted, made durable, folders
made. The count is a file with a line for each, shared by all processes. The environment says what
to count and when to strike, since workers inherit it; kill_points_site/sitecustomize.py installs
the hooks in them.
"""

import builtins
import fcntl
import io
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LOG, AT, BELOW = "KILL_POINTS_LOG", "KILL_POINTS_AT", "KILL_POINTS_BELOW"
WRITING = set("wax+")


def kill_point(at: int, log: Path, *folders: Path) -> Mapping[str, str]:
    """The environment of a command that dies at its write `at` below `folders`; 0: only counts."""
    return {LOG: str(log), AT: str(at), BELOW: os.pathsep.join(map(str, folders))}


def install() -> None:
    """Count the writes of this process from now on, if the environment says so."""
    if LOG not in os.environ:
        return
    opener = _counted_open(io.open)
    builtins.open = io.open = opener  # type: ignore[assignment]
    for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate"):
        setattr(os, name, _counted(name, getattr(os, name)))
    os.fsync = _counted_fsync(os.fsync)  # type: ignore[assignment]


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(path: Any, *rest: Any, **options: Any) -> Any:
        _count(name, path)
        return function(path, *rest, **options)

    return counted


def _counted_open(function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if not WRITING & set(mode):
            return function(file, mode, *rest, **options)
        _count("open", file)
        opened = function(file, mode, *rest, **options)
        _count("opened", file)
        return opened

    return counted


def _counted_fsync(function: Callable[[int], None]) -> Callable[[int], None]:
    def counted(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        _count("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())
        function(file)

    return counted


def _count(operation: str, path: Any) -> None:
    """One more; if it is the one to die at, all processes of the command die."""
    if isinstance(path, int):
        return
    place = str(Path.cwd() / os.fsdecode(path))
    folders = os.environ[BELOW].split(os.pathsep)
    if not any(place == folder or place.startswith(folder + os.sep) for folder in folders):
        return
    log = os.open(os.environ[LOG], os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        fcntl.flock(log, fcntl.LOCK_EX)
        os.write(log, f"{operation} {place}\n".encode())
        number = os.pread(log, os.fstat(log).st_size, 0).count(b"\n")
        if number == int(os.environ[AT]):
            os.killpg(0, signal.SIGKILL)
    finally:
        os.close(log)
