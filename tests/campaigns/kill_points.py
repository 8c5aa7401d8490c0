"""kill -9 of a command, all its processes at once, at its n-th write operation.

Every process of the command installs hooks that count writes below chosen folders: files opened
for writing (before, and again once they are open and empty), renamed, deleted, made durable,
folders made; and, where asked, whatever is sent to a server. The count is a file with a line for
each, shared by all processes. The environment says what to count and when to strike, since workers
inherit it; kill_points_site/sitecustomize.py installs the hooks in them.
"""

import builtins
import fcntl
import io
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LOG, AT, BELOW = "KILL_POINTS_LOG", "KILL_POINTS_AT", "KILL_POINTS_BELOW"
SENDS = "KILL_POINTS_SENDS"  # set: what is sent over a socket is a write as well
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
    if SENDS in os.environ:
        for name in ("send", "sendall"):
            setattr(socket.socket, name, _counted_send(getattr(socket.socket, name)))


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


def _counted_send(function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(connection: socket.socket, content: Any, *rest: Any) -> Any:
        if connection.family == socket.AF_INET:
            _add("send", bytes(content[:60]).split(b"\r\n")[0].decode(errors="replace"))
        return function(connection, content, *rest)

    return counted


def _count(operation: str, path: Any) -> None:
    """One more, if it is below the folders."""
    if isinstance(path, int):
        return
    place = str(Path.cwd() / os.fsdecode(path))
    folders = os.environ[BELOW].split(os.pathsep)
    if not any(place == folder or place.startswith(folder + os.sep) for folder in folders):
        return
    _add(operation, place)


def _add(operation: str, place: str) -> None:
    """A line for it; if it is the one to die at, all processes of the command die."""
    log = os.open(os.environ[LOG], os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        fcntl.flock(log, fcntl.LOCK_EX)
        os.write(log, f"{operation} {place}\n".encode())
        number = os.pread(log, os.fstat(log).st_size, 0).count(b"\n")
        if number == int(os.environ[AT]):
            os.killpg(0, signal.SIGKILL)
    finally:
        os.close(log)
