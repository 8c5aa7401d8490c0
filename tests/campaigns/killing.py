"""Work that is killed at its n-th atomic write, as by kill -9 or a power cut."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from release.files.commit import TEMPORARY

POINTS = ("before the rename", "after the rename")


def killed_at(number: int, point: str, work: Callable[[], object]) -> bool:
    """`work` in a child that kills itself at its n-th atomic write; False if it has fewer."""
    child = os.fork()
    if child == 0:
        seen = 0
        rename = Path.replace

        def counted(path: Path, target: Path) -> Path:
            nonlocal seen
            seen += 1
            if seen == number and point == "before the rename":
                os.kill(os.getpid(), signal.SIGKILL)
            rename(path, target)
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return target

        Path.replace = counted  # type: ignore[method-assign,assignment]
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(TEMPORARY)
    }


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob(f"*{TEMPORARY}"))
