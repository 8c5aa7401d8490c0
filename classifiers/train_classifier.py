"""The command `train-classifier`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from builder.results import Result
from classifiers.experiment import Experiment, run_experiment, seed_paths
from classifiers.recipe import ClassifierRecipe, load_recipe
from classifiers.sources import Source, check_sources, join_images, load_source, open_source
from generation.command import run_command
from generation.errors import UserError
from generation.image_sets import LabelledImages
from generation.options import Json
from generation.progress import progress_bar

Train = Annotated[
    list[str],
    typer.Option(help="RELEASE[:CONFIG[:SPLIT]] to train on; repeat it to mix releases."),
]
Test = Annotated[str, typer.Option(help="RELEASE[:CONFIG[:SPLIT]] of real images to test on.")]
Out = Annotated[
    Path, typer.Option(help="The result file, .json; predictions go beside it as .parquet.")
]
RecipeName = Annotated[
    str, typer.Option(help="A built-in classifier recipe's name or a TOML file.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Decides all randomness of the training; by default 0.")
]
Seeds = Annotated[
    str | None, typer.Option(help="Several seeds, such as 0,1,2: one training and one file each.")
]
PerClass = Annotated[
    int | None,
    typer.Option(min=1, help="Images of each class and source, the first by image id."),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Optimiser steps, in place of the recipe's epochs.")
]
Save = Annotated[
    Path | None,
    typer.Option(help="File for the trained classifier, .safetensors; accept rules read it."),
]


def main() -> None:
    """Console entry point."""
    run_command(train_classifier)


def train_classifier(
    train: Train,
    test: Test,
    out: Out,
    recipe: RecipeName = "fashion-mnist-small",
    seed: Seed = None,
    seeds: Seeds = None,
    per_class: PerClass = None,
    steps: Steps = None,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """Train a classifier on releases, test it on real images, write the result.

    CONFIG is by default the recipe's resolution; SPLIT is train for --train and test for --test.
    Trained on generated images alone, the accuracy is the Classification Accuracy Score (CAS).
    With --seeds the result files are OUT-seed0.json and so on.

    Examples:

    \b
      train-classifier --train releases/fashion-mnist-32 \\
        --test releases/fashion-mnist-real --out results/cas.json

    \b
      train-classifier --train releases/fashion-mnist-real:32:train --per-class 1000 \\
        --test releases/fashion-mnist-real:32:test --seeds 0,1,2 --out results/real.json

    \b
      train-classifier --train releases/fashion-mnist-real --train releases/fashion-mnist-32 \\
        --test releases/fashion-mnist-real --steps 4000 --out results/mixed.json
    """
    if out.suffix != ".json":
        raise UserError(f"--out {out}: give a file name that ends in .json")
    if save is not None and save.suffix != ".safetensors":
        raise UserError(f"--save {save}: give a file name that ends in .safetensors")
    chosen_seeds = _choose_seeds(seed, seeds)
    chosen = load_recipe(recipe)
    sources = tuple(open_source(spec, chosen.resolution, "train", per_class) for spec in train)
    test_source = open_source(test, chosen.resolution, "test")
    check_sources(sources, test_source)
    experiment = _read_experiment(chosen, steps, sources, test_source, as_json)
    _run_seeds(experiment, chosen_seeds, out, save, as_json)


def _read_experiment(
    recipe: ClassifierRecipe,
    steps: int | None,
    train: tuple[Source, ...],
    test: Source,
    quiet: bool,
) -> Experiment:
    """What is trained and tested, its images read."""
    with progress_bar(len(train) + 1, "reading", "sets", quiet=quiet) as advance:
        *parts, testing = [_read(source, recipe.resolution, advance) for source in (*train, test)]
    return Experiment(
        recipe=recipe,
        steps=steps,
        train=train,
        train_images=tuple(map(len, parts)),
        training=join_images(parts),
        test=test,
        testing=testing,
    )


def _run_seeds(
    experiment: Experiment, seeds: Sequence[int], out: Path, save: Path | None, as_json: bool
) -> None:
    """One training and one result file a seed, printed as they come."""
    paths = seed_paths(out, seeds)
    for number, path in paths.items():
        experiment.require_free(path, number)
    saves = seed_paths(save, seeds) if save else {}
    results = {}
    for number, path in paths.items():
        bar = partial(progress_bar, label=f"seed {number}", unit="images", quiet=as_json)
        results[path] = run_experiment(experiment, number, path, bar, saves.get(number))
        if not as_json:
            print(summary(results[path], path))
    if as_json:
        content = [{"path": str(path), **asdict(result)} for path, result in results.items()]
        print(json.dumps({"results": content}, indent=2))


def summary(result: Result, path: Path) -> str:
    """One line: what was reached, on how many, and where it stands."""
    top1 = result.values["top1"]
    low, high = top1["interval"]
    name = "CAS, top-1" if result.values["cas"] else "top-1"
    return (
        f"{name} {top1['value']:.2%} (95% {low:.2%} to {high:.2%}, n {top1['n']:,}), "
        f"seed {result.seeds['classifier']}: {path}"
    )


def _read(source: Source, resolution: int, advance: Callable[[int], None]) -> LabelledImages:
    images = load_source(source, resolution)
    advance(1)
    return images


def _choose_seeds(seed: int | None, seeds: str | None) -> Sequence[int]:
    """Distinct, in the order given."""
    if seeds is None:
        return [seed or 0]
    if seed is not None:
        raise UserError("give --seed or --seeds, not both")
    return parse_seeds(seeds)


def parse_seeds(seeds: str) -> tuple[int, ...]:
    """Distinct whole numbers of a comma-separated list, in the order given."""
    fields = [field.strip() for field in seeds.split(",")]
    if not all(field.isdecimal() for field in fields):
        raise UserError(f"--seeds {seeds!r}: give whole numbers, comma-separated, such as 0,1,2")
    return tuple(dict.fromkeys(map(int, fields)))
