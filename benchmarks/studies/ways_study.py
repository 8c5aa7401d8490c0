"""The study fashion-mnist-ways and all it takes: generators, what they generate, and classifiers.

    python benchmarks/studies/ways_study.py --out results/fashion-mnist/study-ways

For each of three seeds a generator that saw 1,000 real images, one that saw 5,000 and one that saw
54,000, all trained from nothing for the same number of steps (training recipes
fashion-mnist-16-small and fashion-mnist-32-small). That of 1,000 is sampled in six ways; their
guides and classifiers saw those 1,000 images and no others. Everything is a command of this
project; rerunning goes on. --jobs says how many at a time.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REAL = "releases/fashion-mnist-real"
SEEDS = (0, 1, 2)
FEW = 100  # real images of each class; of generators that are sampled in further ways
MADE: Mapping[int | str, int] = {FEW: 300, 500: 500, "whole": 1000}  # of each class, by what it saw
GUIDE = 500  # steps of the training, after which the base guides itself
CLASSIFIER_STEPS = 500  # of the classifier of noisy images
EPOCHS = 128  # of the classifier that accepts images
STAGE = """
[[stage]]
resolution = {side}
generator = "pixel-unet"
checkpoint = "{runs}-{side}/checkpoint"
sampler = {{ method = "dpm-solver++", steps = {steps}, black_point = {black}{settings} }}
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
    """seen: real images of each class, "whole" for all of `fit`."""

    work: Path
    seen: int | str
    seed: int

    @property
    def name(self) -> str:
        """Of its trainings and releases."""
        return f"whole-{self.seed}" if self.seen == "whole" else f"same-{self.seen}-{self.seed}"

    @property
    def data(self) -> tuple[object, ...]:
        """Options of finetune-generator."""
        if self.seen == "whole":
            return ("--split", "fit")
        return ("--split", "train", "--per-class", self.seen)

    def run(self, what: object) -> Path:
        """Folder of one of its trainings."""
        return self.work / f"{self.name}-{what}"


@dataclass(frozen=True)
class Way:
    """How a generator is sampled: settings, further ones of the first stage's sampler; first and
    second, lines below the stages; spare, slots of each class that may stay empty."""

    name: str = ""
    settings: str = ""
    first: str = ""
    second: str = ""
    regime: str = "B"
    spare: int = 0


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
    generators = [Generator(given.work, seen, seed) for seen in MADE for seed in SEEDS]
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
    _train(generator, 16, "fashion-mnist-16-small", "--keep-every", GUIDE)
    _train(generator, 32, "fashion-mnist-32-small")
    further = _further_ways(generator) if generator.seen == FEW else ()
    for way in (Way(), *further):
        _build(generator, way)


def _further_ways(generator: Generator) -> Sequence[Way]:
    """What the field found since 2023 (docs/generators.md, docs/recipes.md)."""
    weaker = f'[stage.guide]\ncheckpoint = "{generator.run(16)}/checkpoints/{GUIDE}"'
    judge = f'rule = "classifier-confidence", checkpoint = "{_judge(generator)}", minimum = 0.2'
    images = f'release = "{REAL}"\nsplit = "train"\nper_class = {generator.seen}'
    _train(generator, "noisy", "fashion-mnist-16-classifier", "--steps", CLASSIFIER_STEPS)
    noisy = f'checkpoint = "{generator.run("noisy")}/checkpoint", scale = 0.02, towards = "entropy"'
    return (
        Way("-autoguided", ", guidance = 1.5", first=f"\n{weaker}\n"),
        Way("-interval", ", guidance = 1.5, guidance_interval = [0.2, 0.6]"),
        Way("-entropy", f", classifier = {{ {noisy} }}"),
        Way("-accepted", second=f"accept = {{ {judge} }}\n", spare=200),
        Way("-exemplars", first=f"\n[stage.exemplars]\n{images}\nstrength = 0.7\n", regime="C"),
    )


def _train(generator: Generator, what: int | str, base: str, *options: object) -> None:
    """One network, from nothing, by the recipe `base` with a seed of its own."""
    recipe = generator.run(what).with_suffix(".toml")
    recipe.write_text(
        f'name = "{base}"\nbase = "{base}"\n\n[training]\nseed = {3000 + generator.seed}\n'
    )
    _run(
        *("finetune-generator", "--recipe", recipe, "--data", REAL, *generator.data),
        *("--threads", 1, "--json", "--out", generator.run(what), *options),
    )


def _build(generator: Generator, way: Way) -> None:
    """As many images a class as the study takes, and the spare ones."""
    runs, name = generator.work / generator.name, f"ways-{generator.name}{way.name}"
    text = HEAD.format(name=name, seed=2023 + generator.seed, regime=way.regime)
    text += STAGE.format(side=16, runs=runs, steps=16, black=3, settings=way.settings) + way.first
    text += STAGE.format(side=32, runs=runs, steps=12, black=4, settings="") + way.second
    recipe = generator.work / f"{name}.toml"
    recipe.write_text(text)
    _run(
        *("build-dataset", "--recipe", recipe, "--per-class", MADE[generator.seen] + way.spare),
        *("--workers", 1, "--out", f"releases/{name}"),
    )


def _judge(generator: Generator) -> Path:
    """A classifier that saw the generator's real images alone."""
    file = generator.run("judge").with_suffix(".safetensors")
    if not file.is_file():
        _run(
            *("train-classifier", "--train", REAL, "--per-class", generator.seen, "--test", REAL),
            *("--set", f"epochs={EPOCHS}", "--seed", generator.seed, "--save", file),
            *("--out", file.with_suffix(".json")),
        )
    return file


if __name__ == "__main__":
    main()
