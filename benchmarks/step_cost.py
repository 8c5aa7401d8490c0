"""What a training step costs, in steps of a reference.

    python benchmarks/step_cost.py RECIPE DATA REFERENCE DATA_OF_REFERENCE

Both train in turn in this process, a few seconds each, on one thread: a machine's speed changes
within minutes, and both costs with it. Prints JSON: `ratio`, the median of the rounds, and the
processor seconds of a step of either, a number a round.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from generation.families import load_training_recipe, trainable
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.processes import launched_processes
from generation.training.run import train_course
from release.files.storage import release_path
from release.streaming.image_cache import ImageCache

SECONDS = 10.0  # of processor time a round, of either
FIRST = 3  # steps that are not counted: memory is laid out in them
STEPS = 1000  # more than fit into SECONDS
PER_CLASS = 64  # images: a step costs the same, and they are read at once


class EnoughError(Exception):
    """Ends a training that has taken its seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("recipe", "data", "reference", "data_of_reference"):
        parser.add_argument(name)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    own, reference = list[float](), list[float]()
    for _ in range(given.rounds):
        own.append(seconds_a_step(given.recipe, given.data))
        reference.append(seconds_a_step(given.reference, given.data_of_reference))
    ratio = statistics.median(a / b for a, b in zip(own, reference, strict=True))
    print(json.dumps({"ratio": ratio, "own": own, "reference": reference}))


def seconds_a_step(name: str, data: str) -> float:
    """Processor seconds, the mean of as many steps as fit into SECONDS."""
    recipe = load_training_recipe(name).with_steps(STEPS)
    family, processes = trainable(recipe.generator), launched_processes()
    wanted = Wanted(release_path(data), "fit", family.sides(recipe), PER_CLASS)
    images = open_training_set(wanted, 1e9, ImageCache(limit=0))
    recipe = family.with_images(recipe, images, data)
    course = family.course(recipe, None, images, processes)
    ends = list[float]()

    def advanced(_: int) -> None:
        ends.append(time.process_time())
        if len(ends) > FIRST + 1 and ends[-1] - ends[FIRST] > SECONDS:
            raise EnoughError

    with tempfile.TemporaryDirectory() as folder:
        states = TrainingStates(Path(folder), save_every=STEPS)
        with contextlib.suppress(EnoughError):
            train_course(course, recipe.training, states, processes, Hooks(advanced))
    return (ends[-1] - ends[FIRST]) / (len(ends) - 1 - FIRST)


if __name__ == "__main__":
    main()
