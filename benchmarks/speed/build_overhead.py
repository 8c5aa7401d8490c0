"""What a build costs beyond sampling: its wall time over that of the bare sampling loop.

Both make the same images of the embedded recipe, on the same one worker process with one torch
thread. The bare loop calls the generators batch after batch, both models loaded, parents in memory,
and keeps nothing on disk. The build is all that `build-dataset` does with a warm worker: plan of
shards, models loaded at each change of stage, encoding, Parquet, hashes, fsync, markers, README and
manifest. Rounds are interleaved, each first in turn. ratio: median over rounds; ratio_cold: the
whole command, from the start of its process, over the median bare loop. The pixels of both must be
the same. cpu_ratio: CPU seconds of the worker instead of wall time, which other work on the machine
disturbs less; encoding beside sampling is in it. The last line is one JSON object.

    python benchmarks/speed/build_overhead.py
    python benchmarks/speed/build_overhead.py --seconds 30 --rounds 2
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

from builder.builds.build import BuildPlan, build_release, plan_build
from builder.builds.run import RunSettings
from builder.cluster.cluster import Cluster, ClusterOptions, open_cluster
from builder.planning.recipe import load_recipe
from builder.shards.shard import ShardJob
from release.classes.class_list import load_classes
from release.layout.image_sets import decode
from release.layout.shard_files import read_shard
from release.results.result import environment

RECIPE = "fashion-mnist"
INDICES = 5  # of each of 10 classes: one batch of the recipe at each stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="of each bare loop, at least")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, warm_worker() as cluster:
        folder = Path(name)
        build(planned(folder / "warm-up", INDICES), cluster)
        bare(planned(folder / "none", INDICES), cluster)
        first = bare(planned(folder / "none", INDICES), cluster)[0]
        # a tenth more than needed: the machine may be quicker than it just was
        per_class = INDICES * math.ceil(1.1 * arguments.seconds / first)
        rounds = [one_round(folder, i, per_class, cluster) for i in range(arguments.rounds)]
        loops = [facts["bare_s"] for facts in rounds]
        cold = seconds_of_command(folder / "cold", per_class)
    result = {
        "ratio": statistics.median(facts["ratio"] for facts in rounds),
        "ratio_cold": cold / statistics.median(loops),
        "cpu_ratio": statistics.median(facts["cpu_ratio"] for facts in rounds),
        "rounds": rounds,
        "cold_s": cold,
        "images": per_class * 10 * 2,
        "images_per_s_bare": per_class * 10 * 2 / statistics.median(loops),
        "recipe": RECIPE,
        "same_pixels": True,  # or one_round had ended the benchmark
        "load_average": os.getloadavg()[0],
        "environment": environment(),
    }
    print(json.dumps(result))
    if min(loops) < arguments.seconds:
        raise SystemExit(f"a bare loop took {min(loops):.0f} s, less than {arguments.seconds:.0f}")


@contextmanager
def warm_worker() -> Iterator[Cluster]:
    """One worker process, set up as `build-dataset --workers 1` does."""
    with open_cluster(ClusterOptions(workers=1), 1, lambda _: None) as cluster:
        cluster.client.wait_for_workers(1)
        yield cluster


def planned(release: Path, per_class: int) -> BuildPlan:
    recipe = load_recipe(RECIPE)
    release.mkdir(exist_ok=True)
    classes = load_classes(recipe.classes)
    return plan_build(recipe, recipe.chain(None), classes, per_class, release)


def one_round(folder: Path, number: int, per_class: int, cluster: Cluster) -> dict[str, float]:
    """Both, whoever is first; SystemExit if their pixels differ."""
    plan = planned(folder / f"round-{number}", per_class)
    if number % 2:
        wall, cpu = build(plan, cluster)
    loop, loop_cpu, pixels = bare(plan, cluster)
    if not number % 2:
        wall, cpu = build(plan, cluster)
    print(f"round {number}: bare {loop:.1f} s, build {wall:.1f} s", flush=True)
    if written_pixels(plan) != pixels:
        raise SystemExit("the build's pixels are not those of the bare loop")
    return {"bare_s": loop, "build_s": wall, "ratio": wall / loop, "cpu_ratio": cpu / loop_cpu}


def build(plan: BuildPlan, cluster: Cluster) -> tuple[float, float]:
    """Seconds of all that a build does, on a worker that is there already; CPU seconds there."""

    @contextmanager
    def warm(*_: object) -> Iterator[Cluster]:
        yield cluster

    cpu = worker_cpu(cluster)
    started = time.perf_counter()
    with patch("builder.builds.run.open_cluster", warm):
        outcome = build_release(plan, RunSettings(), lambda _: None)
    wall = time.perf_counter() - started
    assert len(outcome.records) == len(plan.shards), outcome
    return wall, worker_cpu(cluster) - cpu


def worker_cpu(cluster: Cluster) -> float:
    """CPU seconds that the worker has used, all its threads together."""
    return float(sum(cluster.client.run(time.process_time).values()))


def bare(plan: BuildPlan, cluster: Cluster) -> tuple[float, float, dict[str, str]]:
    """Seconds and CPU seconds of the sampling loop on the worker; a hash of each shard's pixels."""
    future = cluster.client.submit(sampling_loop, plan.jobs(), pure=False)
    seconds, cpu, pixels = future.result()
    return seconds, cpu, pixels


def sampling_loop(jobs: Sequence[ShardJob]) -> tuple[float, float, dict[str, str]]:
    """Runs on the worker. Stage after stage; the recipe's sizes leave no batch half full."""
    from builder.planning.image_seeds import image_seed
    from generation.families import generator_source
    from generation.generator import ImageBatch

    models = {
        job.plan.stage.recipe.resolution: generator_source(job.plan.stage.recipe.generator).load(
            job.checkpoint, job.plan.stage.recipe.compile
        )
        for job in {job.plan.stage.fingerprint: job for job in jobs}.values()
    }
    made: dict[str, np.ndarray] = {}
    cpu, started = time.process_time(), time.perf_counter()
    for job in jobs:
        recipe = job.plan.stage.recipe
        cells = list(job.plan.block.cells())
        parents = made[job.plan.parent_path] if job.plan.parent_path else None
        batches = []
        for first in range(0, len(cells), recipe.batch):
            rows = cells[first : first + recipe.batch]
            batch = ImageBatch(
                prompts=[entry.prompt for entry, _ in rows],
                labels=[entry.label for entry, _ in rows],
                seeds=[
                    image_seed(job.release_seed, recipe.resolution, entry.wnid, index, 0)
                    for entry, index in rows
                ],
                parents=None if parents is None else parents[first : first + recipe.batch],
                resolution=recipe.resolution,
            )
            images = models[recipe.resolution].sample(batch, recipe.sampler)
            assert isinstance(images, np.ndarray)  # these models refuse none
            batches.append(images)
        made[job.path] = np.concatenate(batches)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return seconds, cpu, {path: sha256(images) for path, images in made.items()}


def written_pixels(plan: BuildPlan) -> dict[str, str]:
    """A hash of each shard's pixels, as they are read from the release."""
    hashes = {}
    for job in plan.jobs():
        table = read_shard(job.release / job.path, columns=["image"])
        data = table["image"].combine_chunks().field("bytes").to_pylist()
        hashes[job.path] = sha256(np.stack([decode(image) for image in data]))
    return hashes


def sha256(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def seconds_of_command(release: Path, per_class: int) -> float:
    """The command from nothing to a finished release, in a process of its own."""
    program = Path(sys.executable).parent / "build-dataset"
    command = [program, "--recipe", RECIPE, "--per-class", str(per_class)]
    command += ["--out", release, "--workers", "1", "--json"]
    started = time.perf_counter()
    subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
