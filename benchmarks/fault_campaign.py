"""Kill builds of the embedded recipe at seeded moments, rerun them, compare every byte.

    python benchmarks/fault_campaign.py --out results/fault_campaign.json

Each trial builds the same release of 8 shards, waits until as many are committed as its seed says
and up to two seconds more, kills one worker or the whole command, reruns the command where it
died, and compares Parquet files, markers, manifest and README with an undisturbed build.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.progress import track

from builder.recipe import BUILTIN
from builder.results import environment

MOMENTS = 5
PER_CLASS = 20
SHARDS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "recipe.toml").write_text(small_shards())
        undisturbed = Path(folder) / "one" / "undisturbed"
        started = time.monotonic()
        run(undisturbed, workers=1).wait()
        one_worker = time.monotonic() - started
        expected = release_bytes(undisturbed)
        started = time.monotonic()
        run(Path(folder) / "two" / "undisturbed", workers=2).wait()
        two_workers = time.monotonic() - started
        same_at_two = release_bytes(Path(folder) / "two" / "undisturbed") == expected
        trials = [
            trial(Path(folder) / f"{victim}-{seed}", victim, seed, expected)
            for victim, seed in track(
                [(v, s) for v in ("worker", "command") for s in range(MOMENTS)], "killing"
            )
        ]
    content = {
        "recipe": "fashion-mnist",
        "shards": SHARDS,
        "images": 10 * PER_CLASS * 2,
        "seconds_undisturbed": {"one_worker": one_worker, "two_workers": two_workers},
        "identical_for_one_and_two_workers": same_at_two,
        "trials": trials,
        "all_identical": same_at_two and all(t["identical"] for t in trials),
        "environment": environment(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps({k: content[k] for k in ("all_identical", "seconds_undisturbed")}))


def small_shards() -> str:
    """The embedded recipe with shards of 50 images in place of 250."""
    text = (BUILTIN / "fashion-mnist.toml").read_text()
    return text.replace("indices = 25", "indices = 5")


def run(release: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start the build, its output thrown away."""
    program = Path(sys.executable).parent / "build-dataset"
    recipe = release.parent.parent / "recipe.toml"
    command = [program, "--recipe", recipe, "--per-class", PER_CLASS, "--json"]
    command += ["--out", release, "--workers", workers]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)


def trial(release: Path, victim: str, seed: int, expected: dict[str, bytes]) -> dict[str, object]:
    """Kill when a seeded number of shards is committed and a seeded time has passed; rerun."""
    release = release / "undisturbed"  # the name stands in the README
    chance = random.Random(f"{victim}/{seed}")
    awaited, pause = chance.randrange(SHARDS), chance.uniform(0, 2)
    building = run(release, workers=2)
    while len(list(release.glob("markers/*/*.json"))) < awaited and building.poll() is None:
        time.sleep(0.02)
    time.sleep(pause)
    killed = kill(building, victim)
    finished = {str(p.relative_to(release)) for p in release.glob("markers/*/*.json")}
    if victim == "command":
        run(release, workers=2).wait()
    else:
        building.wait()
    return {
        "victim": victim,
        "seed": seed,
        "shards_awaited": awaited,
        "seconds_after": round(pause, 2),
        "processes_killed": killed,
        "shards_finished_before": len(finished),
        "identical": release_bytes(release) == expected,
    }


def kill(building: subprocess.Popen[bytes], victim: str) -> int:
    """SIGKILL the youngest worker, or the command with all it started; how many were killed."""
    if building.poll() is not None:
        return 0
    everyone = psutil.Process(building.pid).children(recursive=True)
    workers = [p for p in everyone if "spawn_main" in " ".join(p.cmdline())]
    victims = workers[-1:] if victim == "worker" else [psutil.Process(building.pid), *everyone]
    for process in victims:
        process.send_signal(signal.SIGKILL)
    if victim == "command":
        building.wait()
    return len(victims)


def release_bytes(release: Path) -> dict[str, bytes]:
    """Everything in the release but the sidecars, which hold times."""
    files = (p for p in release.rglob("*") if p.is_file())
    found = {str(p.relative_to(release)): p.read_bytes() for p in files}
    return {name: data for name, data in found.items() if not name.startswith("sidecars" + os.sep)}


if __name__ == "__main__":
    main()
