"""What scheduling costs: shards of a stand-in stage that takes 2 s each, on 32 workers.

From the first submit to the last commit, over the ideal of shards x seconds / workers. Beside it,
in processes of their own: the plan of 12 million images (time, peak memory), and the rerun of a
finished release of 1,000 shards (time, and whether it imported torch or datasets).

    python benchmarks/speed/scheduling.py
    python benchmarks/speed/scheduling.py --shards 64 --workers 4 --seconds 0.5
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES_A_SHARD = 4
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

[[stage]]
resolution = 8
generator = "tests.stand_in"
checkpoint = "8"
batch = 4
"""
PLAN = """
import resource, sys, time
from builder.planning.plan import BuildRequest, plan_blocks, plan_shards, plan_stages
from builder.planning.recipe import load_recipe
from release.classes.class_list import load_classes
started = time.perf_counter()
recipe = load_recipe("imagenet-if")
classes = load_classes(recipe.classes)
chain = recipe.chain(None)
stages = plan_stages(recipe, chain, classes, ["0" * 64] * len(chain))
blocks = plan_blocks(recipe, classes, [BuildRequest(tuple(c.wnid for c in classes), 4000)])
shards = plan_shards(stages, blocks)
seconds = time.perf_counter() - started
images = sum(shard.block.rows for shard in shards)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(images, len(shards), seconds, peak)
"""
RERUN = """
import sys
from builder.build_dataset import main
try:
    main()
finally:
    print([name for name in ("torch", "datasets") if name in sys.modules], file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--finished", type=int, default=1000)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = str(ROOT)
    result: dict[str, object] = dict(measure_planning())
    with tempfile.TemporaryDirectory() as folder:
        result |= measure_dispatch(
            Path(folder), arguments.shards, arguments.workers, arguments.seconds
        )
        result |= measure_rerun(Path(folder), arguments.finished)
    print(json.dumps(result))


def measure_planning() -> dict[str, float]:
    """The three stages of imagenet-if at 4,000 images a class: 12 million images."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN], capture_output=True, text=True, check=True, cwd=ROOT
    )
    images, shards, seconds, peak = map(float, done.stdout.split())
    return {
        "planned_images": images,
        "planned_shards": shards,
        "plan_seconds": seconds,
        "plan_peak_mb": peak / 1e6,
    }


def measure_dispatch(folder: Path, shards: int, workers: int, seconds: float) -> dict[str, float]:
    """Efficiency, and the milliseconds a shard beyond its own service time."""
    os.environ["STAND_IN_SECONDS"] = str(seconds)
    from builder.builds.build import plan_build
    from builder.cluster.cluster import ClusterOptions, open_cluster
    from builder.cluster.engine import run_jobs
    from builder.cluster.worker import Done, Terms
    from builder.planning.recipe import load_recipe
    from builder.state import STATE_FILE, write_state
    from release.classes.class_list import load_classes
    from release.commands.interrupt import interruptible
    from release.environment import own_environment
    from release.files.commit import sha256_file

    recipe = load_recipe(str(write_recipe(folder)))
    release = folder / "dispatch"
    release.mkdir()
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.chain(None), classes, shards * IMAGES_A_SHARD, release)
    write_state(release, plan.state)
    terms = Terms("benchmark", own_environment(), sha256_file(release / STATE_FILE))
    with (
        interruptible() as events,
        open_cluster(ClusterOptions(workers=workers), shards, lambda _: None) as cluster,
    ):
        cluster.client.wait_for_workers(workers)
        started = time.perf_counter()
        results = run_jobs(cluster, plan.jobs(), lambda _: terms, events)
        made = sum(isinstance(result, Done) for result in results)
        wall = time.perf_counter() - started
    assert made == shards, f"{made} of {shards} shards"
    os.environ["STAND_IN_SECONDS"] = "0"
    return {
        "shards": shards,
        "workers": workers,
        "service_seconds": seconds,
        "wall_seconds": wall,
        "efficiency": shards * seconds / workers / wall,
        "dispatch_ms": (wall * workers / shards - seconds) * 1000,
    }


def measure_rerun(folder: Path, shards: int) -> dict[str, object]:
    """The command on a release that has all its shards."""
    release = folder / "finished"
    command = ["--recipe", str(write_recipe(folder)), "--out", str(release), "--json"]
    command += ["--per-class", str(shards * IMAGES_A_SHARD)]
    run = [sys.executable, "-c", RERUN, *command]
    subprocess.run(run, capture_output=True, check=True, cwd=ROOT)
    started = time.perf_counter()
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
    return {
        "finished_shards": shards,
        "rerun_seconds": time.perf_counter() - started,
        "rerun_imported": done.stderr.splitlines()[-1],
    }


def write_recipe(folder: Path) -> Path:
    classes = folder / "one.csv"
    classes.write_text("id,wnid,name,prompt\n0,c0,Apple,apple\n")
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(classes=classes))
    return path


if __name__ == "__main__":
    main()
