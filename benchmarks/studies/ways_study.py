"""The study fashion-mnist-ways and all it takes: generators, what they generate, and classifiers.

    python benchmarks/studies/ways_study.py --out results/fashion-mnist/study-ways

For each of three seeds a generator that saw 1,000 real images, one that saw 5,000 and one that saw
54,000, all trained from nothing for as many steps (training recipes fashion-mnist-16-small and
fashion-mnist-32-small). Those of 1,000 are sampled in further ways, too: guided away from
themselves after a third of the training, filtered by a classifier that saw the same images, and
begun from those images, noised.
Everything is a command of this project; rerunning goes on. --jobs says how many at a time.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REAL = "releases/fashion-mnist-real"
SEEDS = (0, 1, 2)
GUIDE = 500  # steps of the training, after which the base guides itself
WEIGHT = 1.5  # of that guidance
IMAGES: Mapping[int | str, int] = {100: 300, 500: 500, "whole": 500}  # of each class
MINIMUM = 0.5  # probability of its class at which an image is accepted
STRENGTH = 0.7  # share of the steps that are made from a noised real image
STAGE = """
[[stage]]
resolution = {side}
generator = "pixel-unet"
checkpoint = "{runs}-{side}/checkpoint"
sampler = {{ method = "dpm-solver++", steps = {steps}, guidance = {weight}, black_point = {black} }}
"""
HEAD = """name = "{name}"
description = "A small cascade of the study fashion-mnist-ways"
classes = "fashion-mnist"
dataset = "fashion-mnist"
regime = "{regime}"
license = "mit"
seed = {seed}
encoding = "webp-lossless"

[shard]
classes = 10
indices = 25
"""


@dataclass(frozen=True)
class Generator:
    """size: real images of each class that it saw, "whole" for all of `fit`."""

    work: Path
    size: int | str
    seed: int

    @property
    def name(self) -> str:
        """Of its trainings and releases."""
        return f"whole-{self.seed}" if self.size == "whole" else f"same-{self.size}-{self.seed}"

    @property
    def data(self) -> tuple[str, ...]:
        """Options of finetune-generator."""
        if self.size == "whole":
            return ("--split", "fit")
        return ("--split", "train", "--per-class", str(self.size))


def main() -> None:
    """Train, build, study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/ways"))
    parser.add_argument("--out", type=Path, default=Path("results/fashion-mnist/study-ways"))
    parser.add_argument("--jobs", type=int, default=2, help="trainings and builds at a time")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if not Path(REAL, "manifest.json").is_file():
        _run("build-dataset", "--real", "fashion-mnist", "--out", REAL)
    generators = [Generator(given.work, s, n) for n in SEEDS for s in (100, 500, "whole")]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(_make, generators))
    _run("run-study", "fashion-mnist-ways", "--out", given.out)


def _run(*words: object) -> None:
    """A console command of this project, on one thread; its error line is enough if it fails."""
    program = Path(sys.executable).parent / str(words[0])
    print("$", *words, flush=True)
    subprocess.run(
        [program, *map(str, words[1:])], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def _make(generator: Generator) -> None:
    for side in (16, 32):
        _train(generator, side)
    _build(generator)
    if generator.size == 100:
        runs = generator.work / f"{generator.name}-16"
        _build(generator, "-autoguided", base=f'checkpoint = "{runs}/checkpoints/{GUIDE}"\n')
        rule = f'rule = "classifier-confidence", checkpoint = "{_judge(generator)}"'
        _build(generator, "-accepted", second=f"accept = {{ {rule}, minimum = {MINIMUM} }}\n")
        began = f'release = "{REAL}"\nsplit = "train"\nper_class = {generator.size}\n'
        _build(generator, "-exemplars", base=f"{began}strength = {STRENGTH}\n")


def _train(generator: Generator, side: int) -> None:
    """One stage, from nothing."""
    recipe = generator.work / f"{generator.name}-{side}.toml"
    base = f"fashion-mnist-{side}-small"
    recipe.write_text(
        f'name = "{base}"\nbase = "{base}"\n\n[training]\nseed = {3000 + generator.seed}\n'
    )
    _run(
        *("finetune-generator", "--recipe", recipe, "--data", REAL, *generator.data),
        *("--keep-every", GUIDE, "--threads", 1, "--json"),
        *("--out", generator.work / f"{generator.name}-{side}"),
    )


def _build(generator: Generator, way: str = "", base: str = "", second: str = "") -> None:
    """As many images a class as the study takes. base: of the table that the first stage has for
    this way; second: a line of the second stage."""
    runs, name = generator.work / generator.name, f"ways-{generator.name}{way}"
    table = {"-autoguided": "\n[stage.guide]\n", "-exemplars": "\n[stage.exemplars]\n"}.get(way, "")
    weight = WEIGHT if way == "-autoguided" else 1.0
    regime = "C" if way == "-exemplars" else "B"
    text = HEAD.format(name=name, seed=2023 + generator.seed, regime=regime)
    text += STAGE.format(side=16, runs=runs, steps=16, weight=weight, black=3) + table + base
    text += STAGE.format(side=32, runs=runs, steps=12, weight=1.0, black=4) + second
    recipe = generator.work / f"{name}.toml"
    recipe.write_text(text)
    _run(
        *("build-dataset", "--recipe", recipe, "--per-class", IMAGES[generator.size]),
        *("--workers", 1, "--out", f"releases/{name}"),
    )


def _judge(generator: Generator) -> Path:
    """A classifier that saw the generator's real images alone."""
    file = generator.work / f"{generator.name}-judge.safetensors"
    if not file.is_file():
        _run(
            *("train-classifier", "--train", REAL, "--per-class", generator.size, "--test", REAL),
            *("--set", "epochs=128", "--seed", generator.seed, "--save", file),
            *("--out", file.with_suffix(".json")),
        )
    return file


if __name__ == "__main__":
    main()
