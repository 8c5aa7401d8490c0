"""Run a module as so many processes beside each other, as accelerate launch does:

python -m tests.servers.launched COUNT MODULE [ARGUMENTS]

All are forks of this process, which has torch and never trains: each starts at once.
"""

import os
import runpy
import sys

import torch

from tests.campaigns.train_on_processes import on_processes


def run_module(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise


def main(count: int, *program: str) -> None:
    torch.set_num_threads(1)  # threads would not outlive the fork
    os.environ["ACCELERATE_USE_CPU"] = "true"
    assert on_processes(count, lambda: run_module(*program))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
