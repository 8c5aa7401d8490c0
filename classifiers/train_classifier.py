"""The command `train-classifier`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated

import typer

from classifiers.recipes.recipe import BUILTIN, ClassifierRecipe, load_recipe
from release.commands.command import Builtin, help_ends, run_command
from release.commands.named_files import require_folder
from release.commands.options import STATE_SECONDS, Json, StateEvery, parse_seeds
from release.commands.progress import progress_bar
from release.commands.surroundings import share_cores
from release.errors import UserError
from release.results.result import Result, read_result
from release.streaming.image_cache import DEFAULT_GIGABYTES, ImageCache, image_cache

if TYPE_CHECKING:
    from classifiers.training.experiment import Experiment
    from classifiers.training.task import Task

MOST_STEPS = 10**9
MOST_VISITS = 1000.0
Train = Annotated[
    list[str],
    typer.Option(help="RELEASE[:CONFIG[:SPLIT]] to train on; repeat it to mix releases."),
]
Test = Annotated[str, typer.Option(help="RELEASE[:CONFIG[:SPLIT]] of real images to test on.")]
Out = Annotated[
    Path, typer.Option(help="The result file, .json; predictions go beside it as .parquet.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help="A built-in classifier recipe's name or a TOML file; by default a small one that "
        "fits the images' colour and size."
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Decides all randomness of the training; by default 0.")
]
Seeds = Annotated[
    str | None, typer.Option(help="Several seeds, such as 0,1,2: one training and one file each.")
]
PerClass = Annotated[
    int | None,
    typer.Option(min=1, help="Images of each class and source at most, the first by image id."),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_STEPS, help="Optimiser steps, in place of the recipe's epochs."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="NAME=VALUE in place of the recipe's, such as epochs=10; repeat it."
    ),
]
Classes = Annotated[
    str | None, typer.Option(help="Only these classes, comma-separated ids or names.")
]
Times = Annotated[
    float | None,
    typer.Option(help="Take so many generated images for each real one, as many of each class."),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Visits an epoch, one a --train: 1,0.5 sees half of the second each time."),
]
Start = Annotated[
    Path | None,
    typer.Option("--from", help="Go on from a classifier that --save wrote, at any resolution."),
]
TeacherFile = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        help="A classifier that --save wrote, for recipes that learn from one: "
        "--set teacher.weight=0.5.",
    ),
]
Loaders = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that decode a set too large for memory; by default a core each, less one.",
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Where images of a release behind a URL are kept; by default the user's cache."
    ),
]
CacheGb = Annotated[
    float, typer.Option(min=0, help="Gigabytes that they may take there; 0 keeps none.")
]
Save = Annotated[
    Path | None,
    typer.Option(help="File for the trained classifier, .safetensors; accept rules read it."),
]


def main() -> None:
    """Console entry point."""
    share_cores()
    run_command(train_classifier, Builtin(BUILTIN))


@help_ends(
    """
    Examples:

    \b
      train-classifier --train releases/fashion-mnist-32 \\
        --test releases/fashion-mnist-real --out results/cas.json
      train-classifier --train releases/fashion-mnist-real:32:train --per-class 1000 \\
        --test releases/fashion-mnist-real:32:test --seeds 0,1,2 --out results/real.json
      train-classifier --train releases/fashion-mnist-real --train releases/fashion-mnist-32 \\
        --per-class 100 --times 3 --test releases/fashion-mnist-real --steps 400 \\
        --out results/mixed.json
      train-classifier --train releases/fashion-mnist-32 --classes sandal,sneaker,ankle-boot \\
        --test releases/fashion-mnist-real --out results/shoes.json
      train-classifier --recipe imagenet-resnet50 --set epochs=1 --set resolution=32 \\
        --set batch=64 --train releases/fashion-mnist-real:original --per-class 50 \\
        --test releases/fashion-mnist-real:original --out results/resnet50.json
      train-classifier --recipe imagenet-resnet50 --train s3://my-bucket/imagenet-1024:256-jpeg \\
        --test s3://my-bucket/imagenet-1k-real:original:validation --cache-dir /scratch/images \\
        --cache-gb 200 --out results/cas.json

    \b
    Several GPUs: accelerate launch -m classifiers.train_classifier --train …
    """
)
def train_classifier(
    train: Train,
    test: Test,
    out: Out,
    recipe: RecipeName = None,
    changes: Set = None,
    seed: Seed = None,
    seeds: Seeds = None,
    per_class: PerClass = None,
    classes: Classes = None,
    times: Times = None,
    weights: Weights = None,
    steps: Steps = None,
    start: Start = None,
    teacher: TeacherFile = None,
    save: Save = None,
    state_every: StateEvery = STATE_SECONDS,
    loaders: Loaders = None,
    cache_dir: CacheDir = None,
    cache_gb: CacheGb = DEFAULT_GIGABYTES,
    as_json: Json = False,
) -> None:
    """Train a classifier on releases, test it on real images, write the result.

    CONFIG is by default the recipe's resolution; SPLIT is train for --train, and for --test it is
    test, or validation where there is no test. CONFIG original takes real images from their
    original bytes. Trained on generated images alone, the accuracy is the Classification Accuracy
    Score (CAS). With --times, --per-class counts real images. With several --seeds the result files
    are OUT-seed0.json and so on. The last step is tested, never the best. Rerun a command that was
    interrupted: it goes on, to the same result.
    """
    from classifiers.training.experiment import seed_paths
    from classifiers.training.task import Task

    _require_names(out, save)
    chosen_seeds = _choose_seeds(seed, seeds)
    cache = image_cache(cache_dir, cache_gb)
    named, reason = _recipe(recipe, train, test, changes or ())
    visits = _parse_weights(weights, len(train))
    task = Task(named, tuple(train), test, per_class, times, visits, steps, start, classes, teacher)
    _require_free(task, seed_paths(out, chosen_seeds))
    _tell_of_recipe(task, reason)
    experiment = _read(task, cache, quiet=as_json)
    _run_seeds(experiment, chosen_seeds, out, save, state_every, loaders, as_json)


def _recipe(
    name: str | None, train: Sequence[str], test: str, changes: Sequence[str]
) -> tuple[ClassifierRecipe, str | None]:
    """The one of that name, changed; without a name one for the images, and why."""
    if name is not None:
        return load_recipe(name, changes), None
    from classifiers.training.default_recipe import default_recipe

    default, reason = default_recipe(train, test)
    return load_recipe(default, changes), reason


def _require_names(out: Path, save: Path | None) -> None:
    _require_suffix("--out", out, ".json")
    _require_suffix("--save", save, ".safetensors")


def _require_suffix(option: str, path: Path | None, suffix: str) -> None:
    if path is not None and path.suffix != suffix:
        raise UserError(f"{option} {path}: give a file name that ends in {suffix}")
    if path is not None:
        require_folder(path.parent, option)


def _require_free(task: "Task", paths: Mapping[int, Path]) -> None:
    """UserError, before images are read, if what stands at a seed's path is another measurement."""
    planned = task.measurement()
    for seed, path in paths.items():
        planned.require_free(path, seed)


def _tell_of_recipe(task: "Task", reason: str | None) -> None:
    """Which one was taken for who named none; what one that was named would lose, or be slow in."""
    from classifiers.training.default_recipe import lost_colour
    from generation.networks.placement import emulates_bfloat16
    from generation.training.processes import launched_processes

    recipe, processes = task.recipe, launched_processes()
    if not processes.is_main_process:
        return
    if recipe.precision == "bfloat16" and emulates_bfloat16(processes.device.type):
        print(
            f"warning: recipe {recipe.name} trains in bfloat16, which this CPU emulates, many "
            "times slower than float32: --set precision=float32 (another measurement) avoids it",
            file=sys.stderr,
        )
    if reason is not None:
        print(f"recipe {recipe.name}: {reason}; --recipe takes another", file=sys.stderr)
    elif loss := lost_colour(recipe, task.sources()[1]):
        print(f"warning: {loss}", file=sys.stderr)


def _read(task: "Task", cache: ImageCache, *, quiet: bool) -> "Experiment":
    """The images of the task, with progress."""
    from classifiers.training.loop import require_parts
    from generation.networks.timm_classifier import require_fitting
    from generation.training.processes import launched_processes

    sources, test_source = task.sources()
    classes = len(test_source.class_ids)
    require_fitting(task.recipe, classes)  # before images are read
    require_parts(task.recipe, classes, launched_processes().num_processes)
    total = sum(source.images for source in (*sources, test_source))
    with progress_bar(total, "reading", "images", quiet=quiet) as advance:
        return task.read(advance, cache)


def _parse_weights(weights: str | None, sources: int) -> tuple[float, ...]:
    """One a source."""
    if weights is None:
        return (1.0,) * sources
    try:
        found = tuple(float(field) for field in weights.split(","))
    except ValueError:
        found = ()
    if len(found) != sources or not all(0 < weight <= MOST_VISITS for weight in found):
        raise UserError(
            f"--weights {weights!r}: give a positive number for each --train, {MOST_VISITS:g} at "
            f"most, such as "
            f"{','.join(['1'] * sources)}"
        )
    return found


def _run_seeds(
    experiment: "Experiment",
    seeds: Sequence[int],
    out: Path,
    save: Path | None,
    state_seconds: float,
    loaders: int | None,
    as_json: bool,
) -> None:
    """One training and one result file a seed, printed as they come."""
    from classifiers.training.experiment import is_finished, run_experiment, seed_paths
    from generation.training.processes import claimed_by_main, end_together, launched_processes

    paths = seed_paths(out, seeds)
    saves = seed_paths(save, seeds) if save else {}
    processes = launched_processes()
    quiet = as_json or not processes.is_main_process
    results = {}
    for number, path in paths.items():
        bar = partial(progress_bar, label=f"seed {number}", unit="images", quiet=quiet)
        save_to, lease = saves.get(number), path.with_suffix(".lease")
        result: Result | None = None
        if lease.exists() or not is_finished(path, save_to):  # or killed at its very end
            with claimed_by_main(lease, processes):
                experiment.require_free(path, number)  # others had time to write there
                if not is_finished(path, save_to):
                    result = run_experiment(
                        experiment, number, path, bar, save_to, state_seconds, loaders
                    )
        else:
            experiment.require_free(path, number)
        if not processes.is_main_process:
            continue
        results[path] = result = result or read_result(path)
        if not as_json:
            print(summary(result, path))
    if len(results) > 1 and not as_json:
        print(over_seeds(results.values()))
    if as_json and results:
        content = [{"path": str(path), **asdict(result)} for path, result in results.items()]
        print(json.dumps({"results": content}, indent=2))
    end_together(processes)


def summary(result: Result, path: Path) -> str:
    """One line: what was reached, on how many, and where it stands."""
    top1 = result.values["top1"]
    low, high = top1["interval"]
    name = "CAS, top-1" if result.values["cas"] else "top-1"
    return (
        f"{name} {top1['value']:.2%} (95% {low:.2%} to {high:.2%}, n {top1['n']:,}), "
        f"seed {result.seeds['classifier']}: {path}"
    )


def over_seeds(results: Iterable[Result]) -> str:
    """One line: mean and standard deviation of several seeds."""
    top1 = [result.values["top1"]["value"] for result in results]
    return f"mean of {len(top1)} seeds {mean(top1):.2%}, standard deviation {stdev(top1):.2%}"


def _choose_seeds(seed: int | None, seeds: str | None) -> Sequence[int]:
    """In the order given."""
    if seeds is None:
        return [seed or 0]
    if seed is not None:
        raise UserError("give --seed or --seeds, not both")
    return parse_seeds(seeds)


if __name__ == "__main__":  # for accelerate launch -m
    main()
