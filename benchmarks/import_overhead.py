"""What an import of photographs costs over the bare work: files read, decoded, resized, encoded.

    python benchmarks/import_overhead.py --images 20000 --view 64 --out results/full-count

Photographs are made up: 500 x 375 px, noise over gradients, JPEG of quality 90. `build-dataset
--real` imports them with a view on as many workers as there are cores. The bare loop does the same
work in as many processes and writes nothing: it reads each file, decodes it, crops and resizes it.
With --encode it also encodes the view as the import does, in lossless WebP. Several rounds, each
both, in turn; the last line is one JSON object with the medians: ratio, and ratio_encoded.
"""

import argparse
import json
import os
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

from release.images.decoding import decode_rgb
from release.images.encoding import encode_image
from release.images.views import CropRule, make_view

WIDTH, HEIGHT = 500, 375
CLASSES = 100
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
    for number in range(rounds):
        for name, encode in (("bare", False), ("encoded", True)):
            seconds[name].append(bare_loop(files, view, processes, encode=encode))
        seconds["import"].append(imported(folder / "set", folder / f"out{number}", view, processes))
        shutil.rmtree(folder / f"out{number}")
        print({name: round(values[-1], 1) for name, values in seconds.items()}, flush=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "images": images,
        "view": view,
        "processes": processes,
        "load": os.getloadavg()[0],
        "seconds": {
            name: [round(value, 2) for value in values] for name, values in seconds.items()
        },
        "ratio": round(median["import"] / median["bare"], 3),
        "ratio_encoded": round(median["import"] / median["encoded"], 3),
    }


def make_photographs(folder: Path, images: int) -> None:
    """train/CLASS/N.JPEG: gradients with noise that takes as many bytes as ImageNet's, 110 kB."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_photograph, folder), range(images), chunksize=100))


def _photograph(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    pixels = (rng.random(3) * x[..., None] + rng.random(3) * y[..., None]) * 120
    coarse = Image.fromarray(rng.integers(0, 255, (94, 125), np.uint8)).resize((WIDTH, HEIGHT))
    pixels = pixels + np.asarray(coarse)[..., None] * 0.5 + rng.normal(0, 6, pixels.shape)
    place = folder / "train" / f"c{number % CLASSES:03d}" / f"{number:06d}.JPEG"
    place.parent.mkdir(parents=True, exist_ok=True)
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
