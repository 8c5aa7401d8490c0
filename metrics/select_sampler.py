"""The command `select-sampler`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cluster.cluster import ClusterOptions
from builder.planning.recipe import Recipe, load_recipe
from classifiers.data.sources import open_source
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.recipes.recipe import load_recipe as load_classifier
from classifiers.study.runs import Trainers
from classifiers.train_classifier import parse_seeds
from classifiers.training.default_recipe import default_recipe, lost_colour
from classifiers.training.experiment import STATE_SECONDS
from generation.networks.timm_classifier import require_fitting
from metrics.features.extractors import DEFAULT_EXTRACTOR
from metrics.score_release import CACHE
from metrics.selection.cas import CasSettings
from metrics.selection.cas import cas_stage as asked_stage
from metrics.selection.options import (
    Cache,
    Device,
    DryRun,
    ExtractorName,
    Real,
    SomeWorkers,
    Split,
    StateEvery,
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
from metrics.selection.sweep import AXES, Grid, parse_grid, sampler_settings, sweep_points
from release.commands.command import run_command
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey

RecipeName = Annotated[str, typer.Option(help="A built-in recipe's name or a TOML file.")]
Out = Annotated[Path, typer.Option(help="Folder of the sweep: points, results, pictures.")]
Stage = Annotated[
    int | None, typer.Option(help="Resolution of the stage to sweep; by default the first.")
]
Method = Annotated[str, typer.Option(help="ddpm, ddim or dpm-solver++.")]
Guidance = Annotated[
    str | None, typer.Option(help="Comma-separated; an axis not given stays as in the recipe.")
]
Gamma = Annotated[str | None, typer.Option(help="Log-variance coefficients, ddpm only.")]
Steps = Annotated[str | None, typer.Option(help="Step counts.")]
Augmentation = Annotated[str | None, typer.Option(help="Of a super-resolution stage's input.")]
PerClass = Annotated[int, typer.Option(min=1, help="Images of each class and point.")]
ShortList = Annotated[
    int, typer.Option(min=0, help="So many points, the best by distance, get a CAS.")
]
CasAll = Annotated[bool, typer.Option("--cas-all", help="Every point gets a CAS.")]
CasPerClass = Annotated[
    int | None, typer.Option(min=1, help="Images to train on; by default as --per-class.")
]
CasStage = Annotated[
    int | None,
    typer.Option(
        help="Resolution of the images for CAS; by default the classifier's own where the recipe "
        "goes on to it, else the stage's, brought to the classifier's size."
    ),
]
Classifier = Annotated[
    str | None,
    typer.Option(help="Classifier recipe for CAS; by default a small one that sees their colour."),
]
Seeds = Annotated[str, typer.Option(help="Classifier seeds.")]


def main() -> None:
    """Console entry point."""
    run_command(select_sampler)


def select_sampler(
    recipe: RecipeName,
    real: Real,
    out: Out,
    stage: Stage = None,
    method: Method = "ddpm",
    guidance: Guidance = None,
    gamma: Gamma = None,
    steps: Steps = None,
    noise_augmentation: Augmentation = None,
    per_class: PerClass = 100,
    short_list: ShortList = 4,
    cas_all: CasAll = False,
    cas_per_class: CasPerClass = None,
    cas_stage: CasStage = None,
    classifier: Classifier = None,
    seeds: Seeds = "0,1,2",
    state_every: StateEvery = STATE_SECONDS,
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
    """Sweep one stage's sampler settings and choose by Fréchet distance and CAS.

    Each point of the grid is a small release; all are built on one cluster. Their Fréchet distance
    to the tuning split, a tenth of train that no generator learned from, makes a short list, on
    which the classifier's accuracy (CAS) decides. The choice becomes OUT/RECIPE-selected.toml.
    Rerun the same command to go on; a grid with more points computes only those.

    Examples (build-dataset --real fashion-mnist makes the real release):

    \b
      select-sampler --recipe fashion-mnist --real releases/fashion-mnist-real \\
        --stage 16 --guidance 1,1.25,1.5,2 --gamma 0,0.3,1 --steps 8,16,32 \\
        --per-class 100 --cas-per-class 500 --out sweeps/base --dry-run
      select-sampler --recipe imagenet-if --real /shared/imagenet-1k-real --stage 64 \\
        --guidance 1,1.25,1.5,2 --classifier imagenet-resnet50 --cas-per-class 1200 \\
        --scheduler-file /shared/scheduler.json --out /shared/sweeps/base
    """
    require_tuning(split if test is None else test)
    require_places(out, cache, device)
    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    selection = _selection(load_recipe(recipe), stage, real, per_class, extractor, out)
    axes = dict(zip(AXES, (guidance, gamma, steps, noise_augmentation), strict=True))
    grid = parse_grid(selection.recipe, selection.resolution, method, axes)
    images = cas_per_class or per_class
    asked = _AskedCas(cas_all, short_list, classifier, images, seeds, cas_stage)
    trainers = Trainers(options, state_seconds=state_every)
    run = _selection_run(selection, grid, asked, trainers, cache, device, as_json)
    _run(run, recipe, grid, dry_run)


@dataclass(frozen=True)
class _AskedCas:
    """How points are to be judged by a classifier, as the command line has it."""

    every: bool
    short_list: int
    classifier: str | None
    per_class: int
    seeds: str
    stage: int | None


def _selection(
    recipe: Recipe, stage: int | None, real: Path, per_class: int, extractor: str, out: Path
) -> Selection:
    resolution = stage if stage is not None else recipe.stages[0].resolution
    return Selection(recipe, resolution, real, per_class, extractor, out)


def _selection_run(
    selection: Selection,
    grid: Grid,
    asked: _AskedCas,
    trainers: Trainers,
    cache: Path,
    device: str,
    quiet: bool,
) -> SelectionRun:
    """All of it but for what it costs; UserError for what cannot be compared on tuning images."""
    recipe, resolution = selection.recipe, selection.resolution
    points = sweep_points(recipe, resolution, grid)
    listed = len(points) if asked.every else min(asked.short_list, len(points))
    cas = _cas_settings(selection, asked) if listed else None
    require_tuning_unseen(recipe.chain(max(resolution, cas.stage if cas else 0)))
    return SelectionRun(selection, points, cas, listed, trainers, cache, device, quiet)


def _cas_settings(selection: Selection, asked: _AskedCas) -> CasSettings:
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


def _run(run: SelectionRun, recipe: str, grid: Grid, dry_run: bool) -> None:
    selection = run.selection

    def draw(report: SelectionReport) -> list[Path]:
        from metrics.selection.pictures import draw_sweep

        return draw_sweep(report, grid, selection.out)

    def changes(best: Point) -> dict[str, Any]:
        return {"sampler": sampler_settings(best.recipe.chain(selection.resolution)[-1].sampler)}

    run_selection(run, "sampler-selection", recipe, draw, changes, dry_run=dry_run)


if __name__ == "__main__":
    main()
