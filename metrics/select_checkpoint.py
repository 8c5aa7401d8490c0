"""The command `select-checkpoint`."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from metrics.cache_folder import CACHE
from metrics.features.extractors import DEFAULT_EXTRACTOR
from metrics.selection.options import (
    SPLIT,
    Cache,
    Device,
    DryRun,
    ExtractorName,
    Real,
    SomeWorkers,
    Split,
    Test,
    require_places,
    require_tuning,
)
from release.commands.command import help_ends, run_command
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey

Runs = Annotated[
    list[Path], typer.Argument(help="Folders of finetune-generator runs with --keep-every.")
]
RecipeName = Annotated[
    str, typer.Option(help="The recipe whose stage gets each checkpoint: name or TOML file.")
]
Out = Annotated[Path, typer.Option(help="Folder of the selection: points, results, picture.")]
PerClass = Annotated[int, typer.Option(min=1, help="Images of each class and checkpoint.")]


def main() -> None:
    """Console entry point."""
    run_command(select_checkpoint)


@help_ends(
    """
    Example (build-dataset --real fashion-mnist makes the real release):

    \b
      finetune-generator --recipe fashion-mnist-16 --steps 400 --keep-every 100 \\
        --data releases/fashion-mnist-real --out runs/base
      select-checkpoint runs/base --recipe fashion-mnist \\
        --real releases/fashion-mnist-real --per-class 20 --out selections/base

    \b
      select-checkpoint /shared/runs/base --recipe mine.toml --real /shared/real \\
        --scheduler-file /shared/scheduler.json --out /shared/selections/base
    """
)
def select_checkpoint(
    runs: Runs,
    recipe: RecipeName,
    real: Real,
    out: Out,
    per_class: PerClass = 100,
    extractor: ExtractorName = DEFAULT_EXTRACTOR,
    cache: Cache = CACHE,
    device: Device = "auto",
    workers: SomeWorkers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    split: Split = SPLIT,
    test: Test = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Choose among a training's checkpoints by Fréchet distance to the tuning split.

    Each checkpoint takes the place of the recipe's stage of its resolution and makes a small
    release with that stage's sampler; all are built on one cluster. The tuning split is a tenth of
    train that no generator learned from. The best one is named and written into
    OUT/RECIPE-selected.toml. Rerun the same command to go on, also with more checkpoints.
    """
    from builder.planning.recipe import load_recipe
    from classifiers.study.runs import Trainers
    from metrics.selection.checkpoints import AskedCheckpoints, checkpoints_run, choose_checkpoint

    require_tuning(split if test is None else test)
    require_places(out, cache, device)
    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    asked = AskedCheckpoints(runs, load_recipe(recipe), real, per_class, extractor, out)
    run = checkpoints_run(asked, Trainers(options), cache, device, as_json)
    choose_checkpoint(run, recipe, dry_run)


if __name__ == "__main__":
    main()
