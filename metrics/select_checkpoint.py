"""The command `select-checkpoint`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cluster.cluster import ClusterOptions
from builder.planning.recipe import Recipe, load_recipe
from classifiers.study.runs import Trainers
from generation.families import TrainedCheckpoint, trained_checkpoint
from metrics.features.extractors import DEFAULT_EXTRACTOR
from metrics.score_release import CACHE
from metrics.selection.options import (
    Cache,
    Device,
    DryRun,
    ExtractorName,
    Real,
    SomeWorkers,
    Split,
    Test,
    require_places,
)
from metrics.selection.report import run_selection
from metrics.selection.report_model import SelectionReport
from metrics.selection.selection import (
    SPLIT,
    Point,
    Selection,
    require_tuning,
    require_tuning_unseen,
)
from metrics.selection.selection_run import SelectionRun
from metrics.selection.sweep import with_stage
from release.commands.command import run_command
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey
from release.errors import UserError

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
    require_tuning(split if test is None else test)
    require_places(out, cache, device)
    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    chosen = load_recipe(recipe)
    found = [trained_checkpoint(folder) for run in runs for folder in kept_checkpoints(run)]
    resolution = _common_resolution(found)
    _require_distinct(found)
    points = [_point(chosen, checkpoint) for checkpoint in found]
    if len({point.name for point in points}) < len(points):
        raise UserError("several RUN folders have one name: rename one")
    selection = Selection(chosen, resolution, real, per_class, extractor, out)
    require_tuning_unseen([*selection.parents, *(p.recipe.chain(resolution)[-1] for p in points)])
    run = SelectionRun(selection, points, None, 0, Trainers(options), cache, device, as_json)

    def changes(best: Point) -> dict[str, Any]:
        checkpoint = best.recipe.chain(resolution)[-1].checkpoint
        return {"checkpoint": checkpoint, "sha256": selection.stage(best)["checkpoint_sha256"]}

    draw = partial(_draw, out / "curve.png")
    run_selection(run, "checkpoint-selection", recipe, draw, changes, dry_run=dry_run)


def _draw(picture: Path, report: SelectionReport) -> list[Path]:
    from metrics.selection.pictures import draw_checkpoints

    draw_checkpoints(report, picture)
    return [picture]


def kept_checkpoints(run: Path) -> list[Path]:
    """RUN/checkpoints/STEP, by step; UserError if there is none."""
    found = [path for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]
    if not found:
        raise UserError(
            f"{run} keeps no checkpoints: train it with finetune-generator --keep-every"
        )
    return sorted(found, key=lambda path: int(path.name))


def _common_resolution(found: Sequence[TrainedCheckpoint]) -> int:
    """Of the stage that all checkpoints are of; UserError if they are of several."""
    resolutions = {checkpoint.resolution: checkpoint.folder for checkpoint in found}
    if len(resolutions) > 1:
        listed = ", ".join(f"{folder} ({r} px)" for r, folder in sorted(resolutions.items()))
        raise UserError(f"checkpoints of several stages: {listed}; select for one stage at a time")
    return next(iter(resolutions))


def _require_distinct(found: Sequence[TrainedCheckpoint]) -> None:
    """UserError for two checkpoints of the same weights, as of a run and a copy of it."""
    by_hash: dict[str, Path] = {}
    for checkpoint in found:
        folder = checkpoint.folder
        same = by_hash.setdefault(checkpoint.sha256, folder)
        if same is not folder:
            raise UserError(
                f"{same} and {folder} are the same checkpoint: leave out the copied RUN, or the "
                "checkpoint that changed nothing"
            )


def _point(recipe: Recipe, checkpoint: TrainedCheckpoint) -> Point:
    folder, resolution = checkpoint.folder, checkpoint.resolution
    run, step = folder.parent.parent.resolve().name, int(folder.name)
    changes = {
        "checkpoint": str(folder.resolve()),
        "sha256": None,
        "generator": checkpoint.generator,
    }
    recipe.chain(resolution, "the checkpoints' resolution,")  # names the stages, if not this one
    changed = with_stage(recipe, resolution, changes)
    return Point(f"{run}-{step:06d}", {"run": run, "step": step}, changed)


if __name__ == "__main__":
    main()
