"""The command `finetune-generator`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generation.families import load_training_recipe, trainable
from generation.training.data.training_set import (
    DEFAULT_RESIDENT_GB,
    TrainingSet,
    Wanted,
    open_training_set,
)
from generation.training.processes import claimed_by_main, end_together, launched_processes
from generation.training.recipe import BUILTIN, TrainingRecipe
from generation.training.record import claim_folder, training_record
from generation.training.trainable import Course, Trainable
from release.classes.class_list import class_difference, load_classes
from release.commands.command import Builtin, help_ends, run_command, say
from release.commands.progress import progress_bar
from release.commands.surroundings import share_cores
from release.errors import UserError
from release.files.storage import ReleasePath, release_path
from release.layout.image_sets import split_files
from release.streaming.image_cache import DEFAULT_GIGABYTES, image_cache

if TYPE_CHECKING:
    from accelerate import PartialState

GB = 1e9
ResidentGb = Annotated[
    float, typer.Option(min=0, help="Images that decoded take so many GB at most stay in memory.")
]
Loaders = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that decode the others; by default a core each, less one."),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(help="Where images behind a URL are kept; by default the user's cache."),
]
CacheGb = Annotated[
    float, typer.Option(min=0, help="Gigabytes that they may take there; 0 keeps none.")
]
RecipeName = Annotated[str, typer.Option(help="A built-in training recipe or a TOML file.")]
Split = Annotated[str, typer.Option(help="fit is train less its tuning tenth; train is all of it.")]
PerClass = Annotated[
    int | None, typer.Option(help="Images of each class, the first by image id; all if not.")
]
Steps = Annotated[int | None, typer.Option(help="Train so long, not as the recipe.")]
KeepEvery = Annotated[
    int | None, typer.Option(help="Keep a checkpoint every so many steps, for select-checkpoint.")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; by default one a physical core.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document only.")]
Data = Annotated[str | None, typer.Option(help="A release with the stage's resolution.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run: state, curves, checkpoint.")]
Start = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Start from builtin:NAME, a folder of ours, a U-Net as diffusers saves it that fits "
        "the recipe tensor for tensor, or a model on the Hub; by default the recipe's.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what the training takes; do nothing.")
]
GpuName = Annotated[str, typer.Option(help="The GPU that --dry-run plans for: a100-80, h100, …")]
Utilisation = Annotated[
    float, typer.Option(help="Share of the GPU's peak that --dry-run reckons with.")
]


def main() -> None:
    """Console entry point."""
    share_cores()
    run_command(finetune_generator, Builtin(BUILTIN))


@help_ends(
    """
    Examples (build-dataset --real fashion-mnist makes the release):

    \b
      finetune-generator --recipe fashion-mnist-16 \\
        --data releases/fashion-mnist-real --out runs/fashion-mnist-16
      finetune-generator --recipe fashion-mnist-16 --steps 2000 --keep-every 500 \\
        --from builtin:fashion-mnist-16 --data releases/fashion-mnist-real --out runs/longer
      finetune-generator --recipe imagenet-if-64 --dry-run --gpu h100
      finetune-generator --recipe mine.toml --data s3://my-bucket/imagenet-1k-real --out runs/64 \\
        --resident-gb 16 --cache-dir /scratch/images --cache-gb 200

    \b
    Several GPUs: accelerate launch -m generation.finetune_generator --recipe …
    """
)
def finetune_generator(
    recipe: RecipeName,
    data: Data = None,
    out: Out = None,
    start: Start = None,
    split: Split = "fit",
    per_class: PerClass = None,
    steps: Steps = None,
    keep_every: KeepEvery = None,
    threads: Threads = None,
    resident_gb: ResidentGb = DEFAULT_RESIDENT_GB,
    loaders: Loaders = None,
    cache_dir: CacheDir = None,
    cache_gb: CacheGb = DEFAULT_GIGABYTES,
    dry_run: DryRun = False,
    gpu: GpuName = "a100-80",
    utilisation: Utilisation = 0.4,
    as_json: Json = False,
) -> None:
    """Train one stage of a cascade on a release, from scratch or from a checkpoint.

    Rerun the same command to go on after an interruption, also on another number of processes: the
    result is the same. With --keep-every its checkpoints on the way stay, as OUT/checkpoints/STEP.
    Images that do not fit in --resident-gb are read from the release as they are needed.
    """
    chosen = _changed(load_training_recipe(recipe), steps, keep_every)
    chosen, start = _with_classes(chosen, data), chosen.start if start is None else start
    if dry_run:
        _print_plan(chosen, start, gpu, utilisation, as_json)
        return
    if data is None or out is None:
        raise UserError("a training needs --data and --out; only --dry-run goes without")
    family, release = trainable(chosen.generator), release_path(data)
    _require_sense(family.sides(chosen), release, split, per_class, threads)
    chosen = family.with_start(chosen, start)
    _use_threads(threads)
    _require_room(family, chosen, processes := launched_processes(), as_json)
    wanted = Wanted(release, split, family.sides(chosen), per_class)
    cached = image_cache(cache_dir, cache_gb)
    images = open_training_set(wanted, resident_gb * GB, cached, loaders)
    _require_kind(chosen, images)
    _require_classes(chosen, images)
    chosen = family.with_images(chosen, images, data)
    course = family.course(chosen, start, images, processes)
    record = training_record(chosen, images, family.start_facts(start))
    del images  # as large as what is trained on, where they are in memory
    _train(chosen, course, out, record, processes, as_json)


def _with_classes(recipe: TrainingRecipe, data: str | None) -> TrainingRecipe:
    """Those of the data where the recipe names none."""
    if data is None and not recipe.classes:
        raise UserError(
            f"training recipe {recipe.name} takes its classes from the data: give --data"
        )
    return recipe.with_classes_of(data or "")


def _print_plan(
    recipe: TrainingRecipe, start: str | None, gpu: str, utilisation: float, as_json: bool
) -> None:
    """What the training takes, of what is known without fetching anything."""
    from generation.training.plan import training_plan

    if not as_json:
        say(f"counting the network of {recipe.name}")
    family = trainable(recipe.generator)
    known = getattr(family, "planned", family.with_start)
    chosen = known(recipe, start)
    plan = training_plan(chosen, start, family.memory(chosen, 1), gpu, utilisation)
    print(json.dumps(plan.as_json()) if as_json else "\n".join(plan.lines()))


def _require_sense(
    sides: tuple[int, ...],
    data: ReleasePath,
    split: str,
    per_class: int | None,
    threads: int | None,
) -> None:
    """UserError for what can be told without a look at an image."""
    if split not in ("train", "fit"):
        raise UserError(f"--split {split!r}: a generator learns from 'fit' or 'train' alone")
    for option, value in (("--per-class", per_class), ("--threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: give at least 1")
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise UserError(f"--threads {threads}: this machine has {cores} cores")
    for side in sides:
        split_files(data, str(side), split)


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _require_room(
    family: Trainable, recipe: TrainingRecipe, processes: "PartialState", quiet: bool
) -> None:
    """Say what the training takes; UserError if it cannot run here, or finds no room."""
    from generation.networks.placement import emulates_bfloat16
    from generation.training.loop.loop import require_even_batch
    from generation.training.memory import require_memory

    config = recipe.training
    require_even_batch(config.batch, processes.num_processes, config.accumulation)
    if config.precision == "fp16" and processes.device.type == "cpu":
        raise UserError('precision = "fp16" needs a GPU: "bf16" and "no" run on a CPU')
    needed = family.memory(recipe, processes.num_processes)
    if processes.is_main_process and not quiet:
        print(f"{recipe.name}: {needed}", file=sys.stderr)
    slow = config.precision == "bf16" and emulates_bfloat16(processes.device.type)
    if processes.is_main_process and slow:
        print(
            f"warning: {recipe.name} trains in bf16, which this CPU emulates, many times slower "
            'than float32: precision = "no" in a copy of the recipe avoids it',
            file=sys.stderr,
        )
    require_memory(needed, processes.device)


def _changed(recipe: TrainingRecipe, steps: int | None, keep_every: int | None) -> TrainingRecipe:
    """The recipe with the training settings from the command line."""
    for option, value in (("--steps", steps), ("--keep-every", keep_every)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: give at least 1")
    if steps is not None:
        before = recipe.training.warmup
        recipe = recipe.with_steps(steps)
        if recipe.training.warmup != before:
            found = f"warmup = {recipe.training.warmup} instead of {before}"
            print(f"--steps {steps}: {found}, half of the steps at most", file=sys.stderr)
    if keep_every is not None:
        recipe = recipe.with_training(keep_every=keep_every)
    return recipe


def _require_classes(recipe: TrainingRecipe, images: TrainingSet) -> None:
    wnids = tuple(c.wnid for c in load_classes(recipe.classes))
    difference = class_difference(images.class_ids, wnids)
    if difference:
        raise UserError(
            f"{images.wanted.release} has other classes than the recipe's list "
            f"{recipe.classes!r}: {difference}"
        )


def _require_kind(recipe: TrainingRecipe, images: TrainingSet) -> None:
    """UserError for latents, if the recipe's generator learns from pixels alone."""
    if images.latents is not None and not getattr(trainable(recipe.generator), "LATENTS", False):
        raise UserError(
            f"{images.wanted.release} holds latents, which {recipe.generator} does not learn from: "
            "name the release of their images"
        )


def _train(
    recipe: TrainingRecipe,
    course: Course,
    out: Path,
    record: dict[str, Any],
    processes: "PartialState",
    as_json: bool,
) -> None:
    """Train to the end in `out`; the main process prints where the checkpoint is."""
    from generation.training.run import TrainingRun

    config, quiet = recipe.training, as_json or not processes.is_main_process
    with claimed_by_main(out, processes):
        with processes.main_process_first():
            claim_folder(out, record)
        with progress_bar(config.steps, recipe.name, "steps", quiet=quiet) as advance:
            checkpoint = TrainingRun(out, course).train(config, processes, advance)
    if checkpoint is not None:
        answer = {"checkpoint": str(checkpoint), "steps": config.steps}
        print(json.dumps(answer) if as_json else f"checkpoint: {checkpoint}")
    end_together(processes)


if __name__ == "__main__":  # for accelerate launch -m
    main()
