"""The command `select-sampler`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from builder.recipe import load_recipe
from builder.state import claimed
from classifiers.recipe import load_recipe as load_classifier
from classifiers.train_classifier import parse_seeds
from generation.command import run_command
from metrics.extractors import DEFAULT_EXTRACTOR
from metrics.score_release import CACHE
from metrics.selecting import Course
from metrics.selection import SPLIT, Selection, require_tuning, require_tuning_unseen
from metrics.selection_cas import CasSettings, require_stage
from metrics.selection_report import (
    print_outcome,
    reason,
    selection_document,
    write_document,
    write_recipe,
)
from metrics.sweep import parse_grid, sampler_settings, sweep_points


def main() -> None:
    """Console entry point."""
    run_command(select_sampler)


def select_sampler(
    recipe: Annotated[str, typer.Option(help="A built-in recipe's name or a TOML file.")],
    real: Annotated[Path, typer.Option(help="The real release; its tuning split is the judge.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep: points, results, pictures.")],
    stage: Annotated[
        int | None, typer.Option(help="Resolution of the stage to sweep; by default the first.")
    ] = None,
    method: Annotated[str, typer.Option(help="ddpm, ddim or dpm-solver++.")] = "ddpm",
    guidance: Annotated[
        str | None, typer.Option(help="Comma-separated; an axis not given stays as in the recipe.")
    ] = None,
    gamma: Annotated[str | None, typer.Option(help="Log-variance coefficients, ddpm only.")] = None,
    steps: Annotated[str | None, typer.Option(help="Step counts.")] = None,
    noise_augmentation: Annotated[
        str | None, typer.Option(help="Of a super-resolution stage's input.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class and point.")] = 100,
    short_list: Annotated[
        int, typer.Option(min=0, help="So many points, the best by distance, get a CAS.")
    ] = 4,
    cas_all: Annotated[bool, typer.Option("--cas-all", help="Every point gets a CAS.")] = False,
    cas_per_class: Annotated[
        int | None, typer.Option(min=1, help="Images to train on; by default as --per-class.")
    ] = None,
    classifier: Annotated[
        str, typer.Option(help="Classifier recipe for CAS.")
    ] = "fashion-mnist-small",
    seeds: Annotated[str, typer.Option(help="Classifier seeds.")] = "0,1,2",
    extractor: Annotated[str, typer.Option(help="See score-release.")] = DEFAULT_EXTRACTOR,
    cache: Annotated[Path, typer.Option(help="Features and reference statistics.")] = CACHE,
    device: Annotated[str, typer.Option(help="Of the extractor: auto, cpu, cuda …")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a GPU, else one a core.")
    ] = None,
    split: Annotated[str, typer.Option(help="tuning; any other is refused.")] = SPLIT,
    test: Annotated[str | None, typer.Option(help="Refused.", hidden=True)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure the cost, stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document, no progress.")
    ] = False,
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

    \b
      select-sampler --recipe fashion-mnist --real releases/fashion-mnist-real \\
        --stage 32 --method dpm-solver++ --noise-augmentation 0,0.1,0.2 \\
        --per-class 20 --short-list 0 --out sweeps/super-resolution
    """
    require_tuning(split if test is None else test)
    chosen = load_recipe(recipe)
    resolution = stage if stage is not None else chosen.stages[0].resolution
    axes = {
        "guidance": guidance,
        "gamma": gamma,
        "steps": steps,
        "noise_augmentation": noise_augmentation,
    }
    grid = parse_grid(chosen, resolution, method, axes)
    points = sweep_points(chosen, resolution, grid)
    selection = Selection(chosen, resolution, real, per_class, extractor, out)
    cas = CasSettings(load_classifier(classifier), cas_per_class or per_class, parse_seeds(seeds))
    counted = len(points) if cas_all else min(short_list, len(points))
    if counted:
        require_stage(selection, cas.classifier)
        selection.reference(cas.classifier.resolution)
    require_tuning_unseen(chosen.stages)
    with claimed(out):
        selection.claim("sampler")
        course = Course(
            selection, points, cas if counted else None, counted, workers, cache, device, as_json
        )
        cost, outcome = course.run(dry_run=dry_run)
        if outcome is None:
            if as_json:
                print(json.dumps({"points": len(points), "cost": cost.as_json()}, indent=1))
            return
        document = selection_document(course, "sampler-selection", outcome)
        write_document(document, out / "result.json")
        from metrics.selection_pictures import draw_sweep

        pictures = draw_sweep(document, grid, out)
        best = next(point for point in points if point.name == outcome["chosen"])
        path = out / f"{chosen.name}-selected.toml"
        changes = {"sampler": sampler_settings(best.recipe.chain(resolution)[-1].sampler)}
        write_recipe(
            recipe, f"{chosen.name}-selected", resolution, changes, reason(course, outcome), path
        )
    if as_json:
        print(json.dumps({**document, "recipe_file": str(path)}, indent=1))
    else:
        print_outcome(document, [path, out / "result.json", *pictures])
