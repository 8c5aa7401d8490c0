"""Train a tiny SiT and a LoRA of a tiny SDXL on latents, whole and killed, by 1 and 2 processes:

python -m tests.campaigns.train_latents_on_processes FOLDER

FOLDER has sdxl/, classes.csv and real/latents/sdxl, latents of 8 px images. FOLDER/KIND/1, of kinds
sit and lora: undisturbed; /same: on one process, killed (kill -9) at five steps by a seeded
generator and gone on with; /other: killed at those steps and gone on with on another number of
processes each time. FOLDER/sit/2 is trained by two, /full by two with a shard of the weights each.
What is random in training is on.
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch

from generation.families import trainable
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.state_files import TrainingStates
from generation.training.processes import launched_processes
from generation.training.run import train_course
from release.streaming.image_cache import ImageCache
from tests.campaigns.train_on_processes import STEPS, killed_after, on_processes

SIDE = 8
TRAINING = {
    **{"steps": STEPS, "batch": 8, "warmup": 2, "save_every": 2, "flip": True, "ema": 0.9},
    # with a large eps the sums of gradients, whose order differs, make no difference of signs
    **{"optimizer": "adamw", "eps": 1e-3, "learning_rate": 0.02, "clip": 1.0, "seed": 5},
}
TABLES: dict[str, dict[str, Any]] = {
    "lora": {
        "generator": "diffusers",
        "stage": {"resolution": SIDE},
        "lora": {"rank": 2},
        "training": TRAINING | {"caption_dropout": 0.2},
    },
    "sit": {
        "generator": "sit",
        "stage": {"resolution": SIDE, "latents": {"channels": 4, "side": SIDE // 2}},
        "network": {"patch": 2, "width": 16, "depth": 2, "heads": 2},
        "training": TRAINING | {"class_dropout": 0.2},
    },
}
OTHERS = (2, 1, 2, 1, 2, 1)  # processes of /other, run after run


def train(folder: Path, kind: str, name: str, stop: int | None, count: int, **changes: Any) -> None:
    """As one of `count` processes, its states in FOLDER/KIND/NAME."""
    tables = TABLES[kind]
    family, start = trainable(tables["generator"]), str(folder / "sdxl") if kind == "lora" else None
    named = {"name": kind, "description": kind, "classes": str(folder / "classes.csv")}
    recipe = family.RECIPE.model_validate(named | tables).with_training(
        accumulation=2 // count, **changes
    )
    release, processes = folder / "real/latents/sdxl", launched_processes()
    images = open_training_set(Wanted(release, "fit", (SIDE,)), 0, ImageCache(limit=0), loaders=0)
    recipe = family.with_images(family.with_start(recipe, start), images, str(release))
    course = family.course(recipe, start, images, processes)
    states = TrainingStates(folder / kind / name, "key", recipe.training.save_every)
    train_course(course, recipe.training, states, processes, killed_after(stop))


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # threads would not outlive the fork
    os.environ["ACCELERATE_USE_CPU"] = "true"
    moments = sorted(random.Random(22).sample(range(1, STEPS), 5))
    for kind in TABLES:
        assert on_processes(1, lambda k=kind: train(folder, k, "1", None, 1))
        for name, counts in (("same", (1,) * len(OTHERS)), ("other", OTHERS)):
            for stop, count in zip((*moments, None), counts, strict=True):
                ended = on_processes(
                    count, lambda k=kind, n=name, s=stop, c=count: train(folder, k, n, s, c)
                )
                assert ended == (stop is None), (kind, name, stop)
    for name, sharding in (("2", "none"), ("full", "full")):
        changes = {"sharding": sharding}
        assert on_processes(2, lambda n=name, c=changes: train(folder, "sit", n, None, 2, **c))
    print(json.dumps(moments))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
