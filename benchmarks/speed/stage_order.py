"""In which order the shards of a chain of stages are best made, by what loading a model costs.

Three orders of the same jobs: earlier stages first, a child as soon as its parent is committed and
nothing earlier is left (what the builder does); a barrier after each stage; each chain to its end
before the next is begun, swapping models. A stand-in takes a given time to load and a given time a
shard. The last line is one JSON object: wall seconds of each order and load time, medians.

    python benchmarks/speed/stage_order.py
    python benchmarks/speed/stage_order.py --chains 16 --workers 4 --loads 0 1
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from builder.builds.build import BuildPlan, plan_build  # noqa: E402 - the stand-in is beside this script
from builder.cluster.cluster import ClusterOptions, open_cluster  # noqa: E402
from builder.cluster.engine import run_jobs  # noqa: E402
from builder.cluster.worker import Done, Job, Terms, WrappedJob  # noqa: E402
from builder.planning.recipe import load_recipe  # noqa: E402
from builder.state import STATE_FILE, write_state  # noqa: E402
from release.classes.class_list import load_classes  # noqa: E402
from release.commands.interrupt import interruptible  # noqa: E402
from release.environment import own_environment  # noqa: E402
from release.files.commit import sha256_file  # noqa: E402

IMAGES_A_SHARD = 4
RESOLUTIONS = (8, 16, 32)
RECIPE = """
name = "stand-in"
description = "flat colours"
classes = "{classes}"
dataset = "none"
regime = "A"
license = "mit"

[shard]
classes = 1
indices = 4
"""
STAGE = """
[[stage]]
resolution = {0}
generator = "tests.stand_in"
checkpoint = "{0}"
batch = 4
"""


@dataclass(frozen=True)
class LaterStageFirst(WrappedJob):
    """The job, before all jobs of earlier stages."""

    @property
    def priority(self) -> int:
        return -self.job.priority


def earlier_stages_first(jobs: Sequence[Job]) -> list[list[Job]]:
    return [list(jobs)]


def barrier_after_each_stage(jobs: Sequence[Job]) -> list[list[Job]]:
    by_stage = sorted(jobs, key=lambda job: -job.priority)
    return [list(group) for _, group in groupby(by_stage, key=lambda job: job.priority)]


def chain_by_chain(jobs: Sequence[Job]) -> list[list[Job]]:
    return [[LaterStageFirst(job) for job in jobs]]


Order = Callable[[Sequence[Job]], list[list[Job]]]
ORDERS: tuple[Order, ...] = (earlier_stages_first, barrier_after_each_stage, chain_by_chain)


def main() -> None:
    arguments = parse_arguments()
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["STAND_IN_SECONDS"] = str(arguments.seconds)
    walls: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for load in arguments.loads:
            os.environ["STAND_IN_LOAD_SECONDS"] = str(load)
            found: dict[str, list[float]] = {order.__name__: [] for order in ORDERS}
            for _ in range(arguments.rounds):
                for order in ORDERS:
                    found[order.__name__].append(measure(Path(folder), order, arguments))
            walls[str(load)] = {name: statistics.median(values) for name, values in found.items()}
            print(f"loading takes {load:g} s:", walls[str(load)], flush=True)
    ideal = len(RESOLUTIONS) * arguments.chains * arguments.seconds / arguments.workers
    print(json.dumps({"wall_seconds": walls, "ideal_without_loads": ideal, **vars(arguments)}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=44, help="shards of each of three stages")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each shard")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.0, 0.5, 5.0], metavar="S")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def measure(folder: Path, order: Order, arguments: argparse.Namespace) -> float:
    """Seconds from the first submit to the last commit, on workers that have loaded nothing."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        release = Path(name) / "release"
        release.mkdir()
        plan = plan_chains(Path(name), release, arguments.chains)
        write_state(release, plan.state)
        terms = Terms("benchmark", own_environment(), sha256_file(release / STATE_FILE))
        options = ClusterOptions(workers=arguments.workers)
        with (
            interruptible() as events,
            open_cluster(options, arguments.chains, lambda _: None) as cluster,
        ):
            cluster.client.wait_for_workers(arguments.workers)
            started = time.perf_counter()
            made = [
                result
                for jobs in order(plan.jobs())
                for result in run_jobs(cluster, jobs, lambda _: terms, events)
            ]
            wall = time.perf_counter() - started
    if not all(isinstance(result, Done) for result in made):
        raise SystemExit("a shard failed")
    return wall


def plan_chains(folder: Path, release: Path, chains: int) -> BuildPlan:
    classes = folder / "one.csv"
    classes.write_text("id,wnid,name,prompt\n0,c0,Apple,apple\n")
    path = folder / "recipe.toml"
    stages = [STAGE.format(resolution) for resolution in RESOLUTIONS]
    path.write_text("\n".join([RECIPE.format(classes=classes), *stages]))
    recipe = load_recipe(str(path))
    chain = recipe.chain(None)
    return plan_build(recipe, chain, load_classes(recipe.classes), chains * IMAGES_A_SHARD, release)


if __name__ == "__main__":
    main()
