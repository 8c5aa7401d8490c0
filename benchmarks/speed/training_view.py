"""What a training view saves: images decoded and cropped a second, against its release's own.

    python benchmarks/speed/training_view.py
    python benchmarks/speed/training_view.py --source releases/mine:1024 \\
        --view releases/mine:256-jpeg

Both are read as a training reads them: bytes by their place in the file, decoded, Inception's
random crop of the recipe, one thread. Rounds are interleaved, and which goes first alternates;
`ratio` is the median over rounds of the ratio within a round. Files are in the page cache.

Without --source a release is made: crops of scikit-learn's two photographs, enlarged to 1024 px
with noise of a camera's size (standard deviation 4 of 255), stored as lossless WebP, since images
of that size with a free licence are not at hand without a network; and its view of 256 px.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from classifiers.data.one_by_one import drawn_from, training_function
from classifiers.data.sources import index_source, open_source
from classifiers.recipes.recipe import load_recipe
from release.commands.progress import progress_bar
from release.results.result import environment
from release.streaming.encoded import EncodedImages

SIDE = 1024
NOISE = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="RELEASE:CONFIG; by default one is made")
    parser.add_argument("--view", help="RELEASE:CONFIG of its training view")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--recipe", default="imagenet-resnet50")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        specs = (options.source, options.view)
        if not all(specs):
            release = make_release(Path(folder), options.images)
            specs = (f"{release}:{SIDE}", f"{release}:256-jpeg")
        answer = measure(specs, options)
    text = json.dumps(answer, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


def make_release(folder: Path, count: int) -> Path:
    """Photographs, imported at 1024 px, with their view."""
    random = np.random.default_rng(0)
    photographs = load_sample_images().images
    for split, images in (("train", count), ("test", 4)):
        for i in range(images):
            photograph = photographs[i % 2]
            top, left = random.integers(0, np.array(photograph.shape[:2]) - 400)
            crop = Image.fromarray(photograph[top : top + 400, left : left + 400])
            pixels = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float)
            noisy = (pixels + random.normal(0, NOISE, pixels.shape)).clip(0, 255)
            path = folder / "photographs" / split / ("china", "flower")[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.astype(np.uint8)).save(path, quality=98)
    release = folder / "release"
    source = ["--real", folder / "photographs", "--out", release, "--views", SIDE]
    command("build-dataset", *source, "--workers", 1)
    command("release", "view", release, "--from", SIDE, "--workers", 1)
    return release


def command(name: str, *arguments: object) -> None:
    program = Path(sys.executable).parent / name
    subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def measure(specs: tuple[str, str], options: argparse.Namespace) -> dict[str, Any]:
    recipe = load_recipe(options.recipe)
    crop = training_function(recipe)
    sets = {
        name: index_source(open_source(spec, recipe.resolution), lambda _: None)
        for name, spec in zip(("source", "view"), specs, strict=True)
    }
    rows = np.random.default_rng(1).permutation(len(sets["source"]))[: options.images]

    def read(data: EncodedImages, crop: Callable[..., Any] | None) -> float:
        started = time.perf_counter()
        for row in rows.tolist():
            image = data.image(row)
            if crop is not None:
                with drawn_from(0, row):
                    crop(image)
        return (time.perf_counter() - started) / len(rows)

    kinds = {"decoded": None, "decoded_and_cropped": crop}
    seconds: dict[tuple[str, str], list[float]] = {(s, k): [] for s in sets for k in kinds}
    with progress_bar(options.rounds, "reading", "rounds", quiet=False) as advance:
        for number in range(-1, options.rounds):
            for name in sorted(sets, reverse=number % 2 == 0):
                for kind, function in kinds.items():
                    found = read(sets[name], function)
                    if number >= 0:  # the first fills caches
                        seconds[name, kind].append(found)
            advance(number >= 0)
    facts = environment()
    return {
        "specs": [spec.rsplit(":", 1)[1] for spec in specs] if not options.source else specs,
        "images": len(rows),
        "rounds": options.rounds,
        "recipe": recipe.name,
        "bytes_an_image": {name: round(float(data.size.mean())) for name, data in sets.items()},
        "images_a_second": {
            kind: {name: round(1 / statistics.median(seconds[name, kind]), 1) for name in sets}
            for kind in kinds
        },
        "ratio": {kind: ratio(seconds["source", kind], seconds["view", kind]) for kind in kinds},
        "device": facts["device"],
        "cpus": facts["cpus"],
        "versions": facts["versions"],
    }


def ratio(source: list[float], view: list[float]) -> dict[str, float]:
    """How many times as fast the view is: median, least and greatest of the rounds."""
    each = [s / v for s, v in zip(source, view, strict=True)]
    found = {"median": statistics.median(each), "least": min(each), "greatest": max(each)}
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    main()
