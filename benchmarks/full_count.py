"""What each command's start costs where images are many: seconds and peak memory, in processes.

    python benchmarks/full_count.py --images 12000000 --real 1280000 --out results/full-count
    python benchmarks/full_count.py --images 250000 --real 20000
    python benchmarks/full_count.py --steps finish train-1 --folder sets

Each start is measured at a tenth of the images and at all of them: the finish of a build (index,
README, manifest), a training until its first batch on 1 and 2 ranks of 8 loaders each, scoring's
plan with features of all images in the cache (the first time, which writes their index, and the
second), verify's listing, publish's plan, the board with the release on it; of real images the plan
of an import. Memory: the most of the sum of the proportional set sizes of all processes.

The last line is one JSON object. ratio: CPU seconds, or memory, over ten times those at a tenth.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from release.environment import own_environment

LOADERS = 8
MEMORY = "memory_ratio"
STEPS = (
    *("finish", "verify", "publish", "score-first", "score", "leaderboard"),
    *("train-1", "train-2", "import"),
)
HERE = Path(__file__).resolve()
TRAINING = """
base = "small-resnet-32"
description = "the network of 32 px on images of 16, cropped one by one"
name = "tiny"
model = "test_resnet"
resolution = 16
stem_stride = 2
stem_pool = true
batch = 64
[augmentation]
shift = 0
resized_crop = [0.3, 1.0]
"""


@dataclass(frozen=True)
class Cost:
    """Of one start. cpu: seconds of all its processes, whatever else the machine does; gib: the
    most that they took at once."""

    seconds: float
    cpu: float
    gib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12_000_000, help="a multiple of 250,000")
    parser.add_argument("--real", type=int, default=1_280_000)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP")
    parser.add_argument("--folder", type=Path, help="where sets are made, and stay for another run")
    parser.add_argument("--out", type=Path, help="folder for full_count.json")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        from full_count_steps import run_step

        run_step(*options.step)
        return
    if options.images % 250_000:
        parser.error("--images: a multiple of 250,000")
    with sets_folder(options.folder) as folder:
        measured = measure(folder, options.images, options.real, options.steps)
    print(json.dumps(measured))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(measured, indent=1, sort_keys=True) + "\n"
        (options.out / "full_count.json").write_text(text)


@contextmanager
def sets_folder(kept: Path | None) -> Iterator[Path]:
    """Where the sets are made: one that is kept, or one that goes."""
    folder = kept or Path(tempfile.mkdtemp(prefix="full-count-"))
    try:
        yield folder
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, images: int, real: int, steps: Sequence[str]) -> dict[str, object]:
    """The steps at a tenth and at all of the images."""
    counts = {"synthetic": (images // 10, images), "real": (real // 10, real)}
    few, many = (
        costs_of(folder / f"{synthetic}", synthetic, imported, steps)
        for synthetic, imported in zip(counts["synthetic"], counts["real"], strict=True)
    )
    found: dict[str, dict[str, Any]] = {
        name: {
            "few": vars(few[name]),
            "many": vars(many[name]),
            "ratio": round(many[name].cpu / few[name].cpu / 10, 3),
            MEMORY: round(many[name].gib / few[name].gib / 10, 3),
        }
        for name in many
    }
    return {
        "images": counts,
        "loaders_a_rank": LOADERS,
        "machine": _machine(),
        "versions": dict(own_environment().versions),
        "load": round(os.getloadavg()[0], 1),
        "steps": found,
        "worst_ratio": max(step[key] for step in found.values() for key in ("ratio", MEMORY)),
    }


def _machine() -> dict[str, object]:
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in facts if line.startswith("model name")]
    return {"cores": os.cpu_count(), "processor": models[0] if models else platform.machine()}


def costs_of(folder: Path, images: int, real: int, steps: Sequence[str]) -> dict[str, Cost]:
    """By step, of so many images; sets that stand in `folder` are taken."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(TRAINING)
    if not (folder / "manifest.pickle").exists():  # written last
        run("make", folder, str(images))
    if "import" in steps and not (folder / "made").exists():
        run("make-folder", folder, str(real))
        (folder / "made").touch()
    return {name: _cost_of(name, folder) for name in steps}


def _cost_of(name: str, folder: Path) -> Cost:
    step, _, ranks = name.partition("-") if name.startswith("train-") else (name, "", "1")
    return run(step, folder, ranks=int(ranks))


def run(step: str, folder: Path, *arguments: str, ranks: int = 1) -> Cost:
    """The step in processes of its own, as many as there are ranks."""
    command = [sys.executable, str(HERE), "--step", step, str(folder), *arguments]
    started, before = time.monotonic(), _cpu_seconds()
    processes = [
        psutil.Popen(command, env=os.environ | _rank(number, ranks), cwd=HERE.parents[1])
        for number in range(ranks)
    ]
    most = 0
    while any(process.poll() is None for process in processes):
        most = max(most, sum(map(_memory, processes)))
        time.sleep(0.2)
    seconds = time.monotonic() - started
    if any(process.returncode for process in processes):
        raise SystemExit(f"{step} failed")
    cost = Cost(round(seconds, 2), round(_cpu_seconds() - before, 2), round(most / 2**30, 3))
    print(f"{step} {' '.join(arguments)} x{ranks}: {cost}", flush=True)
    return cost


def _cpu_seconds() -> float:
    """Of all processes that have ended, those that they waited for included."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _rank(number: int, ranks: int) -> dict[str, str]:
    """What accelerate tells the processes that it launches."""
    if ranks == 1:
        return {}
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    numbers = {name: str(value) for name, value in names.items()}
    return numbers | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT, "ACCELERATE_USE_CPU": "1"}


def _free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


PORT = _free_port()


def _memory(process: psutil.Process) -> int:
    """Proportional set size of the process and all that it started."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total


if __name__ == "__main__":
    main()
