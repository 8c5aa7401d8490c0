"""What a command needs around it: a home folder, streams that take any text, paths without ~."""

import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from generation.errors import UserError

TILDE = re.compile(r"(--[A-Za-z][\w-]*=)?(~[^/]*(?:/.*)?)")


def settle_in() -> None:
    """Make this process one in which libraries find a home and any text can be printed."""
    _ensure_home()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that knows ASCII only, say
            stream.reconfigure(errors="backslashreplace")


def expanded(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the home folder in place of a ~ that starts one, or an --option=~/value.

    Shells do that for an argument of its own alone.
    """
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
