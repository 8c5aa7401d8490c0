"""The processes of a training, and the random numbers of each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from release.commands.command import say
from release.lease import claimed

if TYPE_CHECKING:
    from accelerate import PartialState


def launched_processes() -> "PartialState":
    """Of the processes that accelerate launched; of this one alone without it."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def processes_here() -> int:
    """How many that were launched together share this machine, as torchrun and accelerate say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def claimed_by_main(folder: Path, processes: "PartialState") -> Iterator[None]:
    """Hold the folder that all of them work in: the main one does. UserError if a command of
    another start is at work there."""
    if not processes.is_main_process:
        yield
        return
    with claimed(folder, say):
        yield


def end_together(processes: "PartialState") -> None:
    """Wait for all of them, then end their group, as torch asks for: at the end of a command."""
    if processes.num_processes > 1:
        processes.wait_for_everyone()
        processes.destroy_process_group()


def seed_torch(number: int) -> None:
    """Set torch's generators of the devices that are in use.

    One by one, since torch.manual_seed formats the stack for each kind of device that is not in
    use: in the midst of a training half a millisecond, a fortieth of a small network's step. A GPU
    must have been in use, as it is once a training has begun.
    """
    import torch

    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)
