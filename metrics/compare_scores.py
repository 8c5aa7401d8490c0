"""The command `compare-scores`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.results import Result, read_result
from generation.command import run_command
from generation.errors import UserError, unknown_name
from generation.terminal import printable, table_cell
from metrics.comparability import difference_interval, numbers, require_comparable

COVERS = {
    "scores": "which images were drawn, not the choice of the reference",
    "classifier": "which test images were drawn, not the chance of training (one training each; "
    "a study compares over seeds: run-study)",
}


def main() -> None:
    """Console entry point."""
    run_command(compare_scores)


def compare_scores(
    first: Annotated[Path, typer.Argument(help="A result of score-release or train-classifier.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    value: Annotated[
        str | None, typer.Option(help="One value, such as fd_test; by default all of both.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say how two scores differ, or why they may not be compared.

    A value is compared only if both were taken with the same protocol, settings and reference, over
    as many images; otherwise the reason stands in its place. With nothing to compare: exit code 2.
    Of two trainings the interval covers which test images were drawn, not the chance of training.

    Examples:

    \b
      compare-scores results/before.json results/after.json
      compare-scores results/before.json results/after.json --value fd_test --json
    """
    results = [read_result(path) for path in (first, second)]
    shared = [key for key in numbers(results[0]) if key in numbers(results[1])]
    if value is not None and not all(value in result.values for result in results):
        raise unknown_name("value of both results", value, shared)
    rows = {key: _compare(results, key) for key in ([value] if value else shared)}
    if not rows:
        raise UserError(f"{first} and {second} have no value in common")
    if all("refused" in row for row in rows.values()):
        raise UserError(next(iter(rows.values()))["refused"])
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _print_table(rows)


def _compare(results: list[Result], key: str) -> dict[str, Any]:
    try:
        require_comparable(results, key)
    except UserError as error:
        return {"refused": str(error)}
    before, after = (result.values[key] for result in results)
    interval = difference_interval(before, after)
    return {
        "first": before["value"],
        "second": after["value"],
        "difference": after["value"] - before["value"],
        "interval": interval,
        "interval_covers": COVERS[results[0].kind] if interval else None,
    }


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("value", "first", "second", "difference", "95% interval")
    refused = {key: row["refused"] for key, row in rows.items() if "refused" in row}
    for key, row in rows.items():
        if key in refused:
            continue
        ends = f"{row['interval'][0]:.4g} … {row['interval'][1]:.4g}" if row["interval"] else ""
        cells = [f"{row[name]:.4g}" for name in ("first", "second", "difference")]
        table.add_row(table_cell(key), *cells, ends)
    Console().print(table)
    for covers in {row.get("interval_covers") for row in rows.values()} - {None}:
        print(f"The interval covers {covers}.")
    for key, reason in refused.items():
        print(printable(f"{key}: not compared: {reason}"))
