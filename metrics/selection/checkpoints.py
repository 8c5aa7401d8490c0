"""What `select-checkpoint` does: a point of each checkpoint, the choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from builder.planning.recipe import Recipe
from classifiers.study.runs import Trainers
from generation.families import TrainedCheckpoint, trained_checkpoint
from metrics.selection.report import run_selection
from metrics.selection.report_model import SelectionReport
from metrics.selection.selection import Point, Selection, require_tuning_unseen
from metrics.selection.selection_run import SelectionRun
from metrics.selection.sweep import with_stage
from release.errors import UserError


@dataclass(frozen=True)
class AskedCheckpoints:
    """What the command line names. runs: of trainings; recipe: what gets each checkpoint."""

    runs: Sequence[Path]
    recipe: Recipe
    real: Path
    per_class: int
    extractor: str
    out: Path


def checkpoints_run(
    asked: AskedCheckpoints, trainers: Trainers, cache: Path, device: str, quiet: bool
) -> SelectionRun:
    """All of it but for what it costs; UserError for what cannot be compared."""
    found = [trained_checkpoint(folder) for run in asked.runs for folder in kept_checkpoints(run)]
    resolution = _common_resolution(found)
    _require_distinct(found)
    points = [_point(asked.recipe, checkpoint) for checkpoint in found]
    if len({point.name for point in points}) < len(points):
        raise UserError("several RUN folders have one name: rename one")
    selection = Selection(
        asked.recipe, resolution, asked.real, asked.per_class, asked.extractor, asked.out
    )
    require_tuning_unseen([*selection.parents, *(p.recipe.chain(resolution)[-1] for p in points)])
    selection.require_reference(cache)
    return SelectionRun(selection, points, None, 0, trainers, cache, device, quiet)


def choose_checkpoint(run: SelectionRun, recipe: str, dry_run: bool) -> None:
    """Score the points and write the choice into `recipe`, as the command line names it."""
    selection = run.selection

    def changes(best: Point) -> dict[str, Any]:
        checkpoint = best.recipe.chain(selection.resolution)[-1].checkpoint
        return {"checkpoint": checkpoint, "sha256": selection.stage(best)["checkpoint_sha256"]}

    draw = partial(_draw, selection.out / "curve.png")
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
