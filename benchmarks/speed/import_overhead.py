"""What an import of photographs costs over the bare work: files read, decoded, resized, encoded.

    python benchmarks/speed/import_overhead.py --images 20000 --view 64 \\
        --out results/import-overhead

Photographs are made up: 500 x 375 px, noise over gradients, JPEG of quality 90. `build-dataset
--real` imports them with a view on as many workers as there are cores. The bare loop does the same
work in as many processes and writes nothing: it reads each file, decodes it, crops and resizes it.
A second loop also encodes the view as the import does, in lossless WebP. Several rounds, each all
three, in turn; the last line is one JSON object with the medians. ratio, ratio_encoded: of wall
seconds; cpu_ratio, cpu_ratio_encoded: of the CPU seconds of all processes, whatever else the
machine does meanwhile.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from release.environment import own_environment
from release.images.crop_rules import CropRule
from release.images.decoding import decode_rgb
from release.images.encoding import encode_image
from release.images.views import make_view

WIDTH, HEIGHT = 500, 375
CLASSES = 100
DIFFERENT = 2000
RULE: CropRule = "center-crop"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--view", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for import_overhead.json")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="import-overhead-"))
    try:
        found = measure(folder, options.images, options.view, options.rounds)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1, sort_keys=True) + "\n"
        (options.out / "import_overhead.json").write_text(text)


def measure(folder: Path, images: int, view: int, rounds: int) -> dict[str, object]:
    """Seconds of each, round by round."""
    processes = len(os.sched_getaffinity(0))
    make_photographs(folder / "set", images)
    files = sorted((folder / "set").rglob("*.JPEG"))
    seconds: dict[str, list[float]] = {"import": [], "bare": [], "encoded": []}
    cpu: dict[str, list[float]] = {name: [] for name in seconds}
    for number in range(rounds):
        works = {
            "bare": partial(bare_loop, files, view, processes, encode=False),
            "encoded": partial(bare_loop, files, view, processes, encode=True),
            "import": partial(imported, folder / "set", folder / "out", view, processes),
        }
        for name, work in works.items():
            before = _cpu_seconds()
            seconds[name].append(round(work(), 2))
            cpu[name].append(round(_cpu_seconds() - before, 2))
        shutil.rmtree(folder / "out")
        print({name: (seconds[name][number], cpu[name][number]) for name in seconds}, flush=True)
    return {
        "images": images,
        "view": view,
        "processes": processes,
        "machine": _machine(),
        "versions": dict(own_environment().versions),
        "load": round(os.getloadavg()[0], 1),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "ratio": _ratio(seconds, "bare"),
        "ratio_encoded": _ratio(seconds, "encoded"),
        "cpu_ratio": _ratio(cpu, "bare"),
        "cpu_ratio_encoded": _ratio(cpu, "encoded"),
    }


def _cpu_seconds() -> float:
    """Of all processes that have ended, those that they waited for included."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _ratio(seconds: dict[str, list[float]], to: str) -> float:
    """Of the medians of the import and of the loop `to`."""
    return round(statistics.median(seconds["import"]) / statistics.median(seconds[to]), 3)


def _machine() -> dict[str, object]:
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in facts if line.startswith("model name")]
    return {"cores": os.cpu_count(), "processor": models[0] if models else platform.machine()}


def make_photographs(folder: Path, images: int) -> None:
    """train/CLASS/N.JPEG: gradients with noise that takes as many bytes as ImageNet's, 110 kB.

    DIFFERENT of them are made, the others are copies.
    """
    places = [
        folder / "train" / f"c{number % CLASSES:03d}" / f"{number:06d}.JPEG"
        for number in range(images)
    ]
    for place in places[:CLASSES]:
        place.parent.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(_photograph, range(DIFFERENT), places[:DIFFERENT], chunksize=100))
    for number, place in enumerate(places[DIFFERENT:]):
        shutil.copyfile(places[number % DIFFERENT], place)


def _photograph(number: int, place: Path) -> None:
    rng = np.random.default_rng(number)
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    pixels = (rng.random(3) * x[..., None] + rng.random(3) * y[..., None]) * 120
    coarse = Image.fromarray(rng.integers(0, 255, (94, 125), np.uint8)).resize((WIDTH, HEIGHT))
    pixels = pixels + np.asarray(coarse)[..., None] * 0.5 + rng.normal(0, 6, pixels.shape)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place, "JPEG", quality=90)


def bare_loop(files: list[Path], view: int, processes: int, *, encode: bool) -> float:
    """Seconds, the start of the processes and of what they import included, as of the import."""
    started = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        work = partial(_view, view=view, encode=encode)
        sum(pool.map(work, files, chunksize=100))
    return time.perf_counter() - started


def _view(path: Path, view: int, *, encode: bool) -> int:
    pixels = make_view(decode_rgb(path.read_bytes()), view, RULE)
    return len(encode_image(pixels, "webp-lossless", synthetic=False)) if encode else pixels.size


def imported(source: Path, out: Path, view: int, processes: int) -> float:
    """Seconds of the command."""
    command = [
        *(str(Path(sys.executable).parent / "build-dataset"), "--real", str(source)),
        *("--views", str(view), "--workers", str(processes), "--out", str(out)),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
