"""The command `compare-scores`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.results import Result, read_result
from generation.command import run_command
from generation.errors import UserError, unknown_name
from metrics.comparability import require_comparable


def main() -> None:
    """Console entry point."""
    run_command(compare_scores)


def compare_scores(
    first: Annotated[Path, typer.Argument(help="A result file of score-release.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    value: Annotated[
        str | None, typer.Option(help="One value, such as fd_test; by default all of both.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say how two scores differ, or why they may not be compared.

    A value is compared only if both were taken with the same protocol, settings and reference, over
    as many images; otherwise the reason stands in its place. With nothing to compare: exit code 2.

    Examples:

    \b
      compare-scores results/before.json results/after.json
      compare-scores results/before.json results/after.json --value fd_test --json
    """
    results = [read_result(path) for path in (first, second)]
    shared = [key for key in results[0].values if key in results[1].values]
    if value is not None and value not in shared:
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
    difference = after["value"] - before["value"]
    row = {"first": before["value"], "second": after["value"], "difference": difference}
    ends = [entry.get("interval") for entry in (before, after)]
    return row | {"interval": _interval(difference, *ends) if all(ends) else None}


def _interval(difference: float, first: list[float], second: list[float]) -> list[float]:
    """95% interval of the difference of two values of sets drawn apart from each other.

    Their half-widths add up in squares.
    """
    centre = [(low + high) / 2 for low, high in (first, second)]
    half = ((first[1] - centre[0]) ** 2 + (second[1] - centre[1]) ** 2) ** 0.5
    return [difference - half, difference + half]


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("value", "first", "second", "difference", "95% interval")
    refused = {key: row["refused"] for key, row in rows.items() if "refused" in row}
    for key, row in rows.items():
        if key in refused:
            continue
        ends = f"{row['interval'][0]:.4g} … {row['interval'][1]:.4g}" if row["interval"] else ""
        numbers = [f"{row[name]:.4g}" for name in ("first", "second", "difference")]
        table.add_row(key, *numbers, ends)
    Console().print(table)
    for key, reason in refused.items():
        print(f"{key}: not compared: {reason}")
