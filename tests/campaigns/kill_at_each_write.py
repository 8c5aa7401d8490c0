"""Train a tiny stage as finetune-generator does, killed at write after write:

python -m tests.campaigns.kill_at_each_write FOLDER

FOLDER/whole is trained in one go. FOLDER/stopped is killed (kill -9) at its first write, run again
and killed at the fourth write of that run, and so on until a run ends. Each run is a fork of this
process, which has torch and never trains: the next starts at once. Prints the number of kills.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.processes import launched_processes
from generation.training.record import claim_folder
from generation.training.run import TrainingRun
from tests.models.tiny_network import tiny_network
from tests.models.train_tiny import tiny_course, tiny_data

WRITES = ("os.mkdir", "os.rename", "os.remove")
CONFIG = PixelUNetTraining(steps=3, batch=4, warmup=1, save_every=2, keep_every=3)


def train(out: Path) -> None:
    network = tiny_network(dropout=0.2)
    claim_folder(out, {"steps": CONFIG.steps})
    course = tiny_course(network, tiny_data(network), CONFIG)
    TrainingRun(out, course).train(CONFIG, launched_processes())


def kill_at_write(number: int, out: Path) -> None:
    """End this process before its `number`-th file of `out` is opened for writing or renamed."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        opened = event == "open" and any(mark in str(arguments[1]) for mark in "wxa+")
        if (opened or event in WRITES) and str(arguments[0]).startswith(str(out)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def in_a_fork(out: Path, kill_at: int | None) -> int:
    """The signal that ended a run, 0 if it came to its end."""
    child = os.fork()
    if child == 0:
        if kill_at is not None:
            kill_at_write(kill_at, out)
        train(out)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"a run ended with {os.WEXITSTATUS(status)}")
    return 0


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # threads would not outlive the fork
    in_a_fork(folder / "whole", None)
    kills = 0
    while in_a_fork(folder / "stopped", 3 * kills + 1) != 0:
        kills += 1
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
