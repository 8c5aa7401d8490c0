"""The end of a command's process, once its work is done."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Have this process leave with the exit code that the block ends with, and no later.

    After the threads that are waited for and what others registered with atexit since. The
    interpreter is not taken apart: a thread of Arrow that then lets go of a Python object aborts
    the process now and then ("terminate called without an active exception", apache/arrow issue
    34314), and it would take up to a second where torch was imported. An uncaught error ends as
    ever.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)
    try:
        yield
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            codes.append(end.code or 0)
        raise


def _leave(codes: list[int]) -> None:
    if codes:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(codes[0])
