"""Train one tiny super-resolution stage on one, two and four processes, whole and killed:

python -m tests.campaigns.train_on_processes FOLDER RELEASE

RELEASE has 4 px and 8 px images in colour. FOLDER/1, /2, /4: undisturbed, on so many processes, the
images read from the release as they are needed; /resident: on one, all of them in memory. /same:
on one, killed (kill -9) at five steps by a seeded generator and gone on with; /other: killed at
those steps and gone on with on another number of processes each time. /full: on two, each with a
shard of the weights and blocks computed again for the backward pass; /mixed: killed, on two sharded
likewise, then on one. What is random in training is
on. All are forks of this process, which has torch and never trains: each starts at once.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from generation.families.pixel_unet.course import network_course
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.processes import launched_processes
from generation.training.run import train_course
from release.streaming.image_cache import ImageCache
from tests.models.tiny_network import PROMPTS, tiny_network

STEPS = 12
BATCH = 8  # of 36 images: epochs end within a batch
CONFIG = PixelUNetTraining(
    **{"steps": STEPS, "batch": BATCH, "warmup": 2, "save_every": 2},
    # with a large eps the sums of gradients, whose order differs, make no difference of signs
    **{"optimizer": "adamw", "eps": 1e-3, "learning_rate": 0.05, "clip": 1.0},
    **{"flip": True, "ema": 0.9, "caption_dropout": 0.2, "seed": 5},
)
OTHERS = (2, 1, 4, 2, 4, 1)  # processes of /other, run after run


def train(
    out: Path, release: Path, resident: bool, stop: int | None, parts: int, **changes: Any
) -> None:
    """As one of the processes, its states in `out`; killed after step `stop` of the training."""
    processes = launched_processes()
    wanted = Wanted(release, "train", (8, 4))
    images = open_training_set(wanted, 1e9 if resident else 0, ImageCache(), loaders=0)
    network = tiny_network(low_resolution=4, dropout=0.2, channels=3, variance="learned")
    told = torch.arange(len(images.class_ids)) % (len(PROMPTS) - 1)
    config = CONFIG.model_copy(update={"accumulation": parts, **changes})
    course = network_course(network, config, images.told(told, 3), processes)
    states = TrainingStates(out, "key", config.save_every)
    train_course(course, config, states, processes, killed_after(stop))


def killed_after(stop: int | None) -> Hooks:
    """Of a training whose process is killed after that step of it."""
    seen = 0

    def advanced(steps: int) -> None:
        nonlocal seen
        seen += steps
        if seen == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    return Hooks(advanced)


def on_processes(count: int, work: Callable[[], None]) -> bool:
    """Whether all came to their end; where one is killed the others are, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_fork(rank, count, port, work) for rank in range(count)]
    ended = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            ended += 1
            continue
        for other in children:
            os.kill(other, signal.SIGKILL)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            raise SystemExit(f"a process ended with {status}")
    return ended == count


def _fork(rank: int, count: int, port: int, work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)  # torch renews its pool on first use, which two threads may not share
    if count > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {name: str(value) for name, value in ranks.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        work()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(folder: Path, release: Path) -> None:
    torch.set_num_threads(1)  # threads would not outlive the fork
    os.environ["ACCELERATE_USE_CPU"] = "true"
    for count in (1, 2, 4):
        out = folder / str(count)
        assert on_processes(count, lambda o=out, c=count: train(o, release, False, None, 4 // c))
    assert on_processes(1, lambda: train(folder / "resident", release, True, None, 4))
    sharded = {"sharding": "full", "gradient_checkpointing": True}
    assert on_processes(2, lambda: train(folder / "full", release, False, None, 2, **sharded))
    assert not on_processes(2, lambda: train(folder / "mixed", release, False, 7, 2, **sharded))
    assert on_processes(1, lambda: train(folder / "mixed", release, False, None, 4))
    moments = sorted(random.Random(22).sample(range(1, STEPS), 5))
    for name, counts in (("same", (1,) * len(OTHERS)), ("other", OTHERS)):
        out = folder / name
        for stop, count in zip((*moments, None), counts, strict=True):
            ended = on_processes(
                count, lambda o=out, s=stop, c=count: train(o, release, False, s, 4 // c)
            )
            assert ended == (stop is None), (name, stop)
    print(json.dumps(moments))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
