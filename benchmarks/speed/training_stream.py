"""What it takes to train a generator on images that are not in memory: memory, and waiting.

    python benchmarks/speed/training_stream.py --out results/training-stream/training_stream.json

memory: peak of a training of --steps steps, from opening the release to the last state, on --images
images and on ten times as many, with the process that decodes: the greatest sum of their
proportional set sizes (PSS), asked for every 100 ms. Rounds are interleaved; `ratio` is that of the
medians. Its network is as small as can be, so that what images take shows.

input: steps a second on streamed images over steps a second on one batch that stays in memory, of
the same network in the same process, both drawing noise, blocks of --block steps in turn; `share`
is the median over rounds of the ratio within a round.

The releases hold 64 px crops of scikit-learn's two photographs, in colour, as PNG, of 1000 classes,
in shards of 5000 with an index, as build-dataset leaves them; 2000 crops are repeated.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from builder.builds.finish import finish_release
from generation.families.pixel_unet.course import network_course
from generation.families.pixel_unet.network import PixelUNet, StageConfig, build_unet
from generation.families.pixel_unet.recipe import PixelUNetTraining
from generation.prompts.conditioning import embed_conditions
from generation.training.data.images import Images, TrainingImages
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.learner import Learner
from generation.training.loop.state_files import TrainingStates
from generation.training.processes import launched_processes
from generation.training.run import loop_settings, train_course
from release.classes.class_list import ClassEntry
from release.layout.manifest import Manifest
from release.layout.parquet import image_features, table_schema, write_table
from release.layout.shard_commit import commit_shard
from release.results.result import environment
from release.streaming.image_cache import ImageCache

SIDE = 64
POOL = 2000
SHARD = 5000
CLASSES = tuple(ClassEntry(i, f"n{i:08d}", f"class {i}", f"class {i}") for i in range(1000))
COLUMNS = {"image_id": "string", "tuning": "bool"}
SHAPE: dict[str, Any] = {
    "block_out_channels": [32, 64, 96],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
SMALLEST = SHAPE | {  # so that what images take shows beside what the network takes
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=12, help="of each training for memory")
    parser.add_argument("--rounds", type=int, default=3, help="of the trainings for memory")
    parser.add_argument("--blocks", type=int, default=15, help="rounds of the input share")
    parser.add_argument("--block", type=int, default=6, help="steps in each")
    parser.add_argument("--batch", type=int, default=16, help="images in each step")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # one training, measured
    options = parser.parse_args()
    if options.train:
        train(options.train, options.steps, options.batch)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sizes = {name: options.images * times for name, times in (("few", 1), ("many", 10))}
        pool = encoded_crops(POOL)
        for name, images in sizes.items():
            make_release(place / name, images, pool)
        answer = {
            "images": sizes,
            "memory": memory(place, options),
            "input": input_share(place / "many", options),
            "settings": {k: v for k, v in vars(options).items() if k not in ("out", "train")},
            "threads": torch.get_num_threads(),
            "environment": environment(),
        }
    text = json.dumps(answer, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


# ---------------------------------------------------------------- releases


def encoded_crops(number: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    found = []
    for i in range(number):
        image = photographs[i % 2]
        side = int(rng.integers(SIDE, 4 * SIDE))
        left, top = (int(rng.integers(size - side)) for size in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
        file = io.BytesIO()
        crop.save(file, "PNG")
        found.append(file.getvalue())
    return found


def make_release(folder: Path, images: int, pool: list[bytes]) -> None:
    """As build-dataset leaves a real release: shards, their sidecars, manifest and index."""
    schema = table_schema(image_features(CLASSES, COLUMNS), CLASSES)
    records = []
    for start in range(0, images, SHARD):
        rows = range(start, min(start + SHARD, images))
        columns: dict[str, list[Any]] = {
            "image": [pool[row % len(pool)] for row in rows],
            "label": [row % len(CLASSES) for row in rows],
            "image_id": [f"image-{row * 7919 % images:09d}" for row in rows],
            "tuning": [row % 10 == 9 for row in rows],
        }
        path = f"{SIDE}/train-{start:08d}.parquet"
        names = [CLASSES[label].wnid for label in columns["label"]]
        write = partial(write_table, schema=schema, columns=columns)
        records.append(commit_shard(folder, path, "f", write, names, time.time()))
    manifest = Manifest(folder.name, "real", "crops", None, "cc0-1.0", CLASSES, {}, tuple(records))
    finish_release(folder, manifest)


# ---------------------------------------------------------------- memory


def memory(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    peaks: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(options.rounds):
        for name, found in peaks.items():
            found.append(peak_of_training(place / name, options))
    medians = {name: statistics.median(found) for name, found in peaks.items()}
    return {
        "peak_pss_mib": peaks,
        "median_pss_mib": medians,
        "ratio": round(medians["many"] / medians["few"], 4),
    }


def peak_of_training(release: Path, options: argparse.Namespace) -> float:
    """MiB of a training and the process that decodes for it."""
    command = [sys.executable, __file__, "--train", str(release)]
    command += ["--steps", str(options.steps), "--batch", str(options.batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as training:
        peak = 0
        while training.poll() is None:
            peak = max(peak, pss(training.pid))
            time.sleep(0.1)
        if training.returncode:
            raise SystemExit(f"the training ended with {training.returncode}")
    return round(peak / 2**20, 1)


def train(release: Path, steps: int, batch: int) -> None:
    """What is measured: a training on images of which none is in memory, to its last state."""
    images = open_training_set(Wanted(release, "fit", (SIDE,)), 0, ImageCache(limit=0), 1)
    config = PixelUNetTraining(steps=steps, batch=batch, warmup=1)
    processes = launched_processes()
    data = images.told(torch.arange(len(CLASSES)), 3)
    course = network_course(network(SMALLEST), config, data, processes)
    with tempfile.TemporaryDirectory() as out:
        train_course(course, config, TrainingStates(Path(out), "", steps), processes)


def pss(process: int) -> int:
    """Bytes of a process and all its children, what they share counted once."""
    total = 0
    try:
        for one in [psutil.Process(process), *psutil.Process(process).children(recursive=True)]:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        pass  # one of them has just ended: its memory is counted no more
    return total


# ---------------------------------------------------------------- input


class Steps:
    """A training that goes on for so many steps at a time."""

    def __init__(self, data: Images, batch: int) -> None:
        config = PixelUNetTraining(steps=10**6, batch=batch)
        processes = launched_processes()
        course = network_course(network(SHAPE), config, data, processes)
        settings = loop_settings(config, processes.device)
        self._learner, self._data = Learner(course.objective, settings, processes), course.data

    def a_second(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            self._learner.step(self._data)
        return steps / (time.perf_counter() - started)


def input_share(release: Path, options: argparse.Namespace) -> dict[str, Any]:
    images = open_training_set(Wanted(release, "fit", (SIDE,)), 0, ImageCache(limit=0), 1)
    told = torch.arange(len(CLASSES))
    first = images.views[0]
    pixels = np.stack([np.asarray(first.image(row)) for row in range(options.batch)])  # type: ignore[union-attr]
    own = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    resident = TrainingImages(own, None, torch.from_numpy(first.labels[: options.batch].copy()))
    steps = {
        "streamed": Steps(images.told(told, 3), options.batch),
        "resident": Steps(resident, options.batch),
    }
    for one in steps.values():
        one.a_second(3)
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.blocks):
        for name in sorted(steps, reverse=number % 2 == 0):
            speeds[name].append(steps[name].a_second(options.block))
    ratios = [s / r for s, r in zip(speeds["streamed"], speeds["resident"], strict=True)]
    return {
        "steps_a_second": {n: round(statistics.median(s), 3) for n, s in speeds.items()},
        "share": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "loaders": 1,
        "cores": len(os.sched_getaffinity(0)),
    }


def network(shape: dict[str, Any]) -> PixelUNet:
    prompts, encoder = embed_conditions("class", [c.prompt for c in CLASSES])
    config = StageConfig(
        resolution=SIDE,
        channels=3,
        conditioning="class",
        text_encoder=encoder,
        prompts=prompts.prompts,
    )
    torch.manual_seed(0)
    return build_unet(config, prompts, shape)


if __name__ == "__main__":
    main()
