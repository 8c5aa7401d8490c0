"""Console commands and workers as forks of one process for all tests of this one, which starts with
the first of them.

tests/conftest.py's `run` starts a command as a user does, in a new interpreter, and so its workers:
for tests of that. These import nothing anew, what Hugging Face's libraries read of the environment
included.
"""

import atexit
import multiprocessing
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask

from builder.cluster.cluster import SETTINGS
from tests.command_server import CommandServer, call
from tests.servers.fork_server import own, use_fork_server

SECONDS = 900.0  # of one command, as of one test


@cache
def command_server() -> CommandServer:
    server = CommandServer().__enter__()
    atexit.register(server.__exit__)
    return server


def run(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in this folder, with the environment of this process."""
    ended = command_server().run(command, Path.cwd(), SECONDS, os.environ | environment)
    return subprocess.CompletedProcess(command, ended.code, ended.out, ended.err)


def run_together(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a module as two processes beside each other."""
    return run(["python", "-m", "tests.servers.launched", "2", module, *arguments])


@contextmanager
def started(command: Sequence[str | Path]) -> Iterator[BaseProcess]:
    """Run it meanwhile, in a process that may be killed, and is in the end."""
    forking = multiprocessing.get_context("forkserver")
    with worker_forks():
        process = forking.Process(target=call, args=tuple(map(str, command)))
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join()


@contextmanager
def worker_forks() -> Iterator[None]:
    """Have the processes that this one starts meanwhile, Dask's workers as well, be forks.

    They begin with the environment that it has now.
    """
    with dask.config.set({"logging": SETTINGS["logging"]}):
        import distributed  # noqa: F401 - first, as it sets what would be lost with the below
    before = vars(own).copy()
    use_fork_server(command_server().start_fork_server(os.environ))
    try:
        with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
            yield
    finally:
        os.close(own._forkserver_alive_fd)
        vars(own).clear()
        vars(own).update(before)
