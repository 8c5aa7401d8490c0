"""What a Dask worker does of a training: all of it in its own process, or its node's processes.

Several processes share each batch as those that accelerate or torchrun start; they meet in a store
that the first node's worker holds, and end with their worker.
"""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from builder.cluster.worker import require_one_thread
from classifiers.on_cluster.shares import telling_share
from classifiers.on_cluster.starts import AttemptEndedError, ProcessLostError, counted_start
from classifiers.training.experiment import is_finished, run_experiment
from classifiers.training.task import Task
from release.commands.options import STATE_SECONDS
from release.environment import visible_gpus
from release.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    from torch.distributed import TCPStore  # type: ignore[attr-defined]

LOOK_SECONDS = 0.5
PRELOAD = [__name__, "classifiers.training.loop", "timm.optim", "accelerate"]
_stores: dict[str, "TCPStore"] = {}  # by attempt, of those whose first node this worker is
_ended: set[str] = set()  # attempts that the client has given up


@dataclass(frozen=True)
class Training:
    """One training. path: of its result; save: of its classifier; after: the results of trainings
    whose classifiers it goes on from or learns from."""

    task: Task
    seed: int
    path: Path
    save: Path | None = None
    after: tuple[Path, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether an earlier call made it, predictions and all."""
        return is_finished(self.path, self.save)


@dataclass(frozen=True)
class Team:
    """What does one training. threads: of torch, and processes that decode, in each process; None:
    the share of each in its machine. processes: on each of `nodes` machines."""

    threads: int | None = None
    processes: int = 1
    nodes: int = 1
    state_seconds: float = STATE_SECONDS

    @property
    def size(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes


@dataclass(frozen=True)
class Place:
    """Which node of an attempt this is, and where all meet: host and port of the store."""

    attempt: str
    node: int
    host: str
    port: int


@dataclass(frozen=True)
class Answer:
    """What a process says that failed. refused: any other would, too (UserError)."""

    refused: bool
    reason: str


def perform(training: Training, team: Team, place: Place | None = None) -> None:
    """This worker's part of the training; nothing where it is finished.

    UserError for what every start would end in; ProcessLostError for a process that was killed.
    """
    require_one_thread()
    if training.finished:  # its worker died after it, or a result has to be told again
        return
    training.path.parent.mkdir(parents=True, exist_ok=True)
    if place is not None and place.node > 0:
        _on_processes(training, team, place)
        return
    with counted_start(training.path):
        if team.size == 1:
            train_here(training, team)
        elif place is not None:
            _on_processes(training, team, place)
        else:
            with _held_store("127.0.0.1", team) as port:
                _on_processes(training, team, Place("", 0, "127.0.0.1", port))


def train_here(training: Training, team: Team) -> None:
    """In this process, beside the others of the team if it was launched as one of them."""
    import torch

    from generation.training.processes import launched_processes

    threads = team.threads or max(1, torch.get_num_threads() // team.processes)
    torch.set_num_threads(threads)
    run_experiment(
        training.task.read(),
        training.seed,
        training.path,
        partial(telling_share, training.path) if launched_processes().is_main_process else _silent,
        save=training.save,
        state_seconds=team.state_seconds,
        loaders=team.threads,
    )


@contextmanager
def _silent(total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    yield lambda _: None


def _on_processes(training: Training, team: Team, place: Place) -> None:
    _require_processes(team)
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(PRELOAD)  # a study's next training need not import it again
    answers = forking.SimpleQueue()
    processes = [
        forking.Process(target=_member, args=(index, training, team, place, answers))
        for index in range(team.processes)
    ]
    try:
        for process in processes:
            process.start()
        while any(p.exitcode is None for p in processes) and not any(p.exitcode for p in processes):
            wait([p.sentinel for p in processes if p.exitcode is None], LOOK_SECONDS)
            if place.attempt in _ended:
                raise AttemptEndedError("another node of this training failed or was lost")
        if any(p.exitcode for p in processes):
            time.sleep(LOOK_SECONDS)  # the one that fails first may only have missed another
            raise _failure([p.exitcode for p in processes], answers)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _failure(codes: Sequence[int | None], answers: "SimpleQueue[Answer]") -> Exception:
    """Why processes that ended with these exit codes did: one was killed, or in their own words."""
    told = []
    while not answers.empty():
        told.append(answers.get())
    for answer in told:
        if answer.refused:
            return UserError(answer.reason)
    for code in codes:
        if code is not None and code < 0:
            return ProcessLostError(f"a process of it was ended by signal {-code}")
    return RuntimeError(told[0].reason if told else f"its processes ended with {codes}")


def _require_processes(team: Team) -> None:
    """UserError for a worker that cannot start them or has fewer GPUs."""
    from distributed import get_worker

    address = get_worker().address
    if multiprocessing.current_process().daemon:
        raise UserError(
            f"worker {address} may not start the {team.processes} processes of a training: start "
            "workers with DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment"
        )
    gpus = len(visible_gpus())
    if gpus and gpus < team.processes:
        raise UserError(
            f"worker {address} sees {gpus} GPUs, but a training takes {team.processes} processes, "
            "a GPU each: start workers that see as many"
        )


def _member(
    index: int, training: Training, team: Team, place: Place, answers: "SimpleQueue[Answer]"
) -> None:
    """One process of a training: as torchrun would have started it."""
    _end_with_worker()
    rank = place.node * team.processes + index
    where = {"MASTER_ADDR": place.host, "MASTER_PORT": place.port, "WORLD_SIZE": team.size}
    who = {"RANK": rank, "LOCAL_RANK": index, "LOCAL_WORLD_SIZE": team.processes}
    os.environ.update({name: str(value) for name, value in (where | who).items()})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is held by the worker
    if not visible_gpus():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        train_here(training, team)
    except Exception as error:  # of any kind, told by the worker
        refused = isinstance(error, UserError)
        answers.put(Answer(refused, str(error) if refused else f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from None


def _end_with_worker() -> None:
    """End when the worker does, however that ends: nobody else would end this process."""
    worker = multiprocessing.parent_process()

    def watch() -> None:
        if worker is not None:
            worker.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def _held_store(host: str, team: Team) -> Iterator[int]:
    """The port of a store for the processes of this machine alone."""
    store = _open_store(host, team.size)
    yield store.port
    del store


def _open_store(host: str, size: int) -> "TCPStore":
    """Listens at `host` on any free port."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    port = listening.getsockname()[1]
    return TCPStore(
        *(host, port, size, True),
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )


def hold_store(attempt: str, host: str, size: int) -> int:
    """On the first node's worker: a store for the attempt, until `end_attempt`; its port."""
    _stores[attempt] = _open_store(host, size)
    return _stores[attempt].port


def end_attempt(attempt: str) -> None:
    """Have this worker's part of the attempt end, if it goes on."""
    _ended.add(attempt)
    _stores.pop(attempt, None)
