"""What a selection leaves behind: result.json, the chosen recipe, the lines on the screen."""

import json
import sys
from collections.abc import Callable, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any

import tomlkit

from builder.planning.recipe import BUILTIN
from metrics.selection.cas import CasSettings
from metrics.selection.options import SPLIT
from metrics.selection.report_model import Choice, Kind, Regret, RunnerUp, SelectionReport
from metrics.selection.selection import Point, Selection
from metrics.selection.selection_run import SelectionRun
from release.commands.named_files import named_file, read_utf8
from release.commands.terminal import table_cell
from release.files.commit import write_atomically
from release.lease import claimed
from release.results.result import environment
from release.results.values import Value

# What a recipe says of a stage's weights; false once they are exchanged.
OF_THE_OLD_WEIGHTS = ("sampler_source", "model", "cost", "published", "regime")


def run_selection(
    run: SelectionRun,
    kind: Kind,
    source: str,
    draw: Callable[[SelectionReport], Sequence[Path]],
    changes: Callable[[Point], dict[str, Any]],
    *,
    dry_run: bool,
) -> None:
    """Perform the run; leave and print result.json, pictures and OUT/RECIPE-selected.toml.

    source: the recipe as its author named it. draw: the document's pictures; changes: what the
    chosen point changes in the recipe's stage.
    """
    selection = run.selection
    with claimed(selection.out):
        selection.claim(kind, write=not dry_run)
        cost, choice = run.perform(dry_run=dry_run)
        if choice is None:
            if run.quiet:
                print(json.dumps({"points": len(run.points), "cost": cost.as_json()}, indent=1))
            return
        report = selection_report(run, kind, choice)
        result = selection.out / "result.json"
        write_report(report, result)
        pictures = draw(report)
        best = next(point for point in run.points if point.name == choice.chosen)
        recipe = _write_choice(run, source, best, changes(best), reason(run, choice))
    if run.quiet:
        print(json.dumps({**report.content(), "recipe_file": str(recipe)}, indent=1))
    else:
        print_report(report, [recipe, result, *pictures])


def _write_choice(
    run: SelectionRun, source: str, best: Point, chosen: dict[str, Any], why: str
) -> Path:
    """OUT/RECIPE-selected.toml; chosen: what the point changes in the stage."""
    selection = run.selection
    name = f"{selection.recipe.name}-selected"
    path = selection.out / f"{name}.toml"
    if "sampler" in chosen:  # what the card of a release will say
        chosen["sampler_source"] = f"select-sampler: {' '.join(why.splitlines())}"
    else:
        chosen["generator"] = best.recipe.chain(selection.resolution)[-1].generator
        chosen |= dict.fromkeys(OF_THE_OLD_WEIGHTS)
        why = f"{why}\n{_left_to_say(selection)}"
    write_recipe(source, name, selection.resolution, chosen, why, path)
    return path


def selection_report(run: SelectionRun, kind: Kind, choice: Choice) -> SelectionReport:
    """The choice with all it takes to know what it means."""
    selection, cas = run.selection, run.cas
    content = {
        "kind": kind,
        "dataset": selection.recipe.dataset,
        "recipe": selection.recipe.name,
        "stage": selection.resolution,
        "split": SPLIT,
        "reference": selection.reference(selection.resolution).identity,
        "extractor": selection.extractor,
        "per_class": selection.per_class,
        "cas_protocol": None if cas is None else cas.protocol(),
        **choice.content(),
        "environment": environment(),
    }
    return SelectionReport.model_validate(content)


def write_report(report: SelectionReport, path: Path) -> None:
    """As JSON."""
    text = json.dumps(report.content(), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def write_recipe(
    source: str, name: str, resolution: int, changes: dict[str, Any], why: str, path: Path
) -> None:
    """The recipe's own file with fields of one stage replaced and a comment saying why.

    With another checkpoint, its description and leading comment go: they are of the old one.
    """
    text = read_utf8(named_file("recipe", BUILTIN, ".toml", source))
    if "checkpoint" in changes:
        content = tomlkit.parse(_without_leading_comment(text))
        content["description"] = (
            f"{content['name']} with another checkpoint at {resolution} px, by select-checkpoint"
        )
    else:
        content = tomlkit.parse(text)
    content["name"] = name
    for stage in content["stage"]:  # type: ignore[union-attr]
        if stage["resolution"] == resolution:
            for field, value in changes.items():
                if value is None:
                    stage.pop(field, None)
                else:
                    stage[field] = _inline(value) if isinstance(value, dict) else value
    text = "".join(f"# {line}\n" for line in why.splitlines()) + tomlkit.dumps(content)
    write_atomically(path, text.encode())


def _without_leading_comment(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(dropwhile(lambda line: line.startswith("#") or not line.strip(), lines))


def _inline(values: dict[str, Any]) -> Any:
    table = tomlkit.inline_table()
    for name, value in values.items():
        table[name] = _inline(value) if isinstance(value, dict) else value
    return table


def _left_to_say(selection: Selection) -> str:
    return (
        f"Its sampler settings are those of recipe {selection.recipe.name}. Before a card can be\n"
        "rendered, say of this checkpoint: sampler_source and [stage.model]; see to the recipe's\n"
        "regime and license, which stay."
    )


def reason(run: SelectionRun, choice: Choice) -> str:
    """How the choice was made, in a few short lines."""
    selection = run.selection
    point = choice.best
    lines = [
        f"Chosen among {len(choice.points)} points at stage {selection.resolution}: {point.name}.",
        f"Frechet distance {point.fd.value:.4g} ({selection.extractor}, {SPLIT} split, "
        f"n = {point.fd.n:,} against {point.fd.reference_n:,}).",
    ]
    if choice.regret_of_fd is not None and run.cas is not None and point.cas is not None:
        lines.append(
            f"CAS {point.cas.value:.2%} ({run.cas.classifier.name}, {SPLIT} split, "
            f"{run.cas.per_class:,} images a class{_size(run.cas)}, seeds "
            f"{', '.join(map(str, run.cas.seeds))}): the best of the short list of "
            f"{choice.regret_of_fd.points} by distance."
        )
    if choice.runner_up is not None:
        lines.append(f"It is {_told_apart(choice, choice.runner_up)}.")
    return "\n".join(lines)


def _size(cas: CasSettings) -> str:
    resolution = cas.classifier.resolution
    return f" of {cas.stage} px brought to {resolution} px" if cas.resized else ""


def _told_apart(choice: Choice, second: RunnerUp) -> str:
    """Whether the chosen point is significantly better than the second best, and by what."""
    better = "significantly better" if second.told_apart else "not significantly better"
    if choice.regret_of_fd is not None:
        seeds = choice.regret_of_fd.seeds
        plural = "" if seeds == 1 else "s"
        number, worse = "{:.2%}", "less CAS"
        basis = f"paired over {seeds} classifier seed{plural}"
    else:
        number, worse, basis = "{:.4g}", "more distance", "over images"
    interval = _interval(second, number) or "no interval"
    return (
        f"{better} than the second best, {second.name}: "
        f"{number.format(second.worse_by)} {worse} ({interval}, {basis})"
    )


def print_report(report: SelectionReport, paths: Sequence[Path]) -> None:
    """The points, best distance first; what the choice rests on; where everything stands."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("point", "FD", "95% interval", "n", "CAS", "95% interval"):
        table.add_column(column, justify="left" if column == "point" else "right")
    for row in sorted(report.points, key=lambda row: row.fd.value):
        fd, cas = row.fd, row.cas
        table.add_row(
            table_cell(row.name + (" (chosen)" if row.name == report.chosen else "")),
            f"{fd.value:.4g}",
            _interval(fd, "{:.4g}"),
            f"{fd.n:,}",
            "" if cas is None else f"{cas.value:.2%}",
            "" if cas is None else _interval(cas, "{:.2%}"),
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    found, rank = report.regret_of_fd, report.correlation_fd_cas
    if found is not None and rank is not None:
        spearman = "not defined" if rank.spearman is None else f"{rank.spearman:.2f}"
        print(
            f"regret of choosing by distance: {found.value:.2%} CAS "
            f"({_interval(found, '{:.2%}')}) over {found.points} points and "
            f"{found.seeds} seeds; rank correlation FD-CAS {spearman} (n = {rank.n})"
        )
    chosen = f"chosen by {report.chosen_by.upper()}: {report.chosen}"
    second = report.runner_up
    print(f"{chosen}, {_told_apart(report, second)}" if second else chosen)
    for path in paths:
        print(path)


def _interval(value: Value | RunnerUp | Regret, number: str) -> str:
    if value.interval is None:
        return ""
    low, high = value.interval
    return f"{number.format(low)} … {number.format(high)}"
