"""What `select-sampler` does: the points of a sweep, the judge of each, the choice."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.cluster.cluster import ClusterOptions
from builder.planning.recipe import load_recipe
from classifiers.data.sources import open_source
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.recipes.recipe import load_recipe as load_classifier
from classifiers.study.runs import Trainers
from classifiers.training.default_recipe import default_recipe, lost_colour
from generation.networks.timm_classifier import require_fitting
from metrics.selection.cas import CasSettings
from metrics.selection.cas import cas_stage as asked_stage
from metrics.selection.options import SPLIT
from metrics.selection.report import run_selection
from metrics.selection.report_model import SelectionReport
from metrics.selection.selection import Point, Selection, require_tuning_unseen
from metrics.selection.selection_run import SelectionRun
from metrics.selection.sweep import AXES, Grid, parse_grid, sampler_settings, sweep_points
from release.commands.options import parse_seeds


@dataclass(frozen=True)
class AskedCas:
    """How points are to be judged by a classifier, as the command line has it."""

    every: bool
    short_list: int
    classifier: str | None
    per_class: int
    seeds: str
    stage: int | None
    state_seconds: float


def swept_stage(
    name: str, stage: int | None, real: Path, per_class: int, extractor: str, out: Path
) -> Selection:
    """A selection on the stage of recipe `name` that is asked for, by default the first."""
    recipe = load_recipe(name)
    resolution = stage if stage is not None else recipe.stages[0].resolution
    return Selection(recipe, resolution, real, per_class, extractor, out)


def swept_grid(selection: Selection, method: str | None, axes: Sequence[str | None]) -> Grid:
    """axes: the values of each of AXES, comma-separated; None, of the method too: as in the
    recipe."""
    named = dict(zip(AXES, axes, strict=True))
    return parse_grid(selection.recipe, selection.resolution, method, named)


def run_sweep(
    name: str,
    selection: Selection,
    grid: Grid,
    asked: AskedCas,
    options: ClusterOptions,
    cache: Path,
    device: str,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Score the points and write the choice into recipe `name`; UserError for what cannot be
    compared on tuning images."""
    trainers = Trainers(options, state_seconds=asked.state_seconds)

    def draw(report: SelectionReport) -> list[Path]:
        from metrics.selection.pictures import draw_sweep

        return draw_sweep(report, grid, selection.out)

    def changes(best: Point) -> dict[str, Any]:
        stage = best.recipe.chain(selection.resolution)[-1]
        left_out = {"guide": None} if stage.guide is None else {}
        return {"sampler": sampler_settings(stage.sampler), **left_out}

    run = _selection_run(selection, grid, asked, trainers, cache, device, quiet)
    run_selection(run, "sampler-selection", name, draw, changes, dry_run=dry_run)


def _selection_run(
    selection: Selection,
    grid: Grid,
    asked: AskedCas,
    trainers: Trainers,
    cache: Path,
    device: str,
    quiet: bool,
) -> SelectionRun:
    recipe, resolution = selection.recipe, selection.resolution
    points = sweep_points(recipe, resolution, grid)
    listed = len(points) if asked.every else min(asked.short_list, len(points))
    cas = _cas_settings(selection, asked) if listed else None
    require_tuning_unseen(recipe.chain(max(resolution, cas.stage if cas else 0)))
    selection.require_reference(cache)
    return SelectionRun(selection, points, cas, listed, trainers, cache, device, quiet)


def _cas_settings(selection: Selection, asked: AskedCas) -> CasSettings:
    classifier = _classifier(selection, asked.classifier)
    cas = CasSettings(
        classifier=classifier,
        per_class=asked.per_class,
        seeds=parse_seeds(asked.seeds),
        stage=asked_stage(selection, classifier, asked.stage),
    )
    _require_classes(selection, cas)
    return cas


def _classifier(selection: Selection, name: str | None) -> ClassifierRecipe:
    """The recipe of that name; without one, a small one for the real images' colour."""
    judge = selection.reference(selection.resolution)
    if name is None:
        name, _ = default_recipe((), f"{judge.release}:{judge.config}:{SPLIT}")
    return load_classifier(name)


def _require_classes(selection: Selection, cas: CasSettings) -> None:
    """UserError, before anything is built, for real images that do not fit; a word on colour."""
    selection.reference(cas.stage)
    require_fitting(cas.classifier, len(selection.classes))
    real = open_source(f"{selection.real}:{cas.stage}:{SPLIT}", cas.stage)
    if loss := lost_colour(cas.classifier, real):
        print(f"warning: {loss}", file=sys.stderr, flush=True)
