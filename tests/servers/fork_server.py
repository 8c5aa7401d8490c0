"""multiprocessing's fork server as a fork of a process that has imported the libraries.

The usual one is a new interpreter, and so is each of Dask's workers: they first import torch, for
seconds. This one starts processes with the environment and the hooks of the process that it is a
fork of, and in its group, so that one signal ends them all.
"""

import os
import socket
from multiprocessing import forkserver, resource_tracker
from typing import NoReturn

own = forkserver._forkserver


def start_fork_server() -> None:
    """Have this process and what it starts fork from here on. Call it while there is one thread."""
    name = f"{__name__}-{os.getpid()}"
    with listening(name) as listener:
        resource_tracker.ensure_running()
        if os.fork() == 0:
            serve_forks(listener)
    use_fork_server(name)


def listening(name: str) -> socket.socket:
    """An abstract socket: no file, which a kill would leave."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen()
    return listener


def serve_forks(listener: socket.socket) -> NoReturn:
    """Be the fork server, until the first of its clients and all that it started are gone."""
    try:
        own.ensure_running = resource_tracker.ensure_running  # grandchildren use it as well
        alive, _ = listener.accept()
        forkserver.main(listener.fileno(), alive.fileno(), preload=())
    finally:
        os._exit(0)


def use_fork_server(name: str) -> None:
    """Have this process fork by the server that listens there, which knows it as the first."""
    alive = socket.socket(socket.AF_UNIX)
    alive.connect(f"\0{name}")
    own._forkserver_address, own._forkserver_alive_fd = f"\0{name}", alive.detach()
    own.ensure_running = resource_tracker.ensure_running  # it is another's child
