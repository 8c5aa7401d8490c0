"""The command `compare-scores`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from metrics.scoring.comparability import difference_interval, numbers, require_comparable
from release.commands.command import help_ends, run_command
from release.commands.terminal import printable, table_cell
from release.errors import UserError, unknown_name
from release.results.result import Result, read_result

OF_ONE_TRAINING = (
    "not the chance of training (one training each; a study compares over seeds: run-study)"
)
COVERS = {
    "scores": "which images were drawn, not the choice of the reference, which both share",
    "classifier": "which test images were drawn, as if each had its own; both share them, so it is "
    "too wide (predictions of images with the same ids do not stand beside both files); "
    f"{OF_ONE_TRAINING}",
}
PAIRED = f"which test images were drawn, the same for both, paired one by one; {OF_ONE_TRAINING}"
OF_OTHERS = "which images were drawn, as if each result had its own"
COUNTED = ("top1", "top5")  # of a training, with predictions beside it


def main() -> None:
    """Console entry point."""
    run_command(compare_scores)


@help_ends(
    """
    Examples:

    \b
      compare-scores results/before.json results/after.json
      compare-scores results/before.json results/after.json --value fd_test --json
    """
)
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
    Each value says whether the second result is better, and whether the difference is significant.
    Of two trainings the interval covers which test images were drawn, not the chance of training;
    with the predictions beside both files, it is of the same images, paired one by one.
    """
    results = [read_result(path) for path in (first, second)]
    shared = [key for key in numbers(results[0]) if key in numbers(results[1])]
    if value is not None and not all(value in result.values for result in results):
        raise unknown_name("value of both results", value, shared)
    paths = [first, second]
    rows = {key: _compare(paths, results, key) for key in ([value] if value else shared)}
    if not rows:
        raise UserError(f"{first} and {second} have no value in common")
    if all("refused" in row for row in rows.values()):
        raise UserError(next(iter(rows.values()))["refused"])
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _print_table(rows)


def _compare(paths: list[Path], results: list[Result], key: str) -> dict[str, Any]:
    try:
        require_comparable(results, key)
    except UserError as error:
        return {"refused": str(error)}
    before, after = (result.values[key] for result in results)
    kind = results[0].kind
    paired = _paired_interval(paths, results, key) if kind == "classifier" else None
    interval = paired or difference_interval(before, after)
    return {
        "first": before["value"],
        "second": after["value"],
        "difference": after["value"] - before["value"],
        "better": _direction(results[0], key) or None,
        "interval": interval,
        "significant": not interval[0] <= 0 <= interval[1] if interval else None,
        "interval_covers": PAIRED if paired else COVERS.get(kind, OF_OTHERS) if interval else None,
    }


def _direction(result: Result, key: str) -> str:
    """What is better of a value: "higher", "lower", or "" where nothing is known."""
    if result.kind == "classifier":
        return "higher" if key in COUNTED else ""
    from metrics.scoring.directions import score_direction

    return score_direction(key, result.values[key].get("better"))


def _paired_interval(paths: list[Path], results: list[Result], key: str) -> list[float] | None:
    """Of the mean over test images of what they gain; None unless both results have predictions,
    and of images with the same ids.

    UserError for predictions that do not give what the result beside them says.
    """
    files = [path.with_suffix(".parquet") for path in paths]
    if key not in COUNTED or not all(file.is_file() for file in files):
        return None
    from classifiers.training.outcomes import read_outcomes
    from classifiers.training.predictions import TOP
    from release.results.statistics import student_interval

    first = {"top1": 1, "top5": TOP}[key]  # guesses that count
    correct, ids = [], []
    for file, result in zip(files, results, strict=True):
        outcomes = read_outcomes({0: file})
        correct.append(outcomes.correct(first)[0].astype(float))
        ids.append(outcomes.image_ids)
        if abs(correct[-1].mean() - result.values[key]["value"]) > 1e-9:
            raise UserError(f"{file} holds other predictions than those of the result beside it")
    if ids[0] != ids[1]:
        return None
    return student_interval(correct[1] - correct[0])


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("value", "first", "second", "second less first", "95% interval")
    refused = {key: row["refused"] for key, row in rows.items() if "refused" in row}
    compared = {key: row for key, row in rows.items() if key not in refused}
    for key, row in compared.items():
        print(printable(f"{key}: {_verdict(row)}."))
    for key, row in compared.items():
        ends = f"{row['interval'][0]:.4g} to {row['interval'][1]:.4g}" if row["interval"] else ""
        cells = [f"{row[name]:.4g}" for name in ("first", "second", "difference")]
        table.add_row(table_cell(key), *cells, ends)
    Console().print(table)
    for covers in {row["interval_covers"] for row in compared.values()} - {None}:
        print(f"The 95% interval of the difference covers {covers}.")
    for key, reason in refused.items():
        print(printable(f"{key}: not compared: {reason}"))


def _verdict(row: dict[str, Any]) -> str:
    """ "the second is lower by 1.9, which is better; statistically significant"."""
    if not row["difference"]:
        return "the same in both"
    towards = "higher" if row["difference"] > 0 else "lower"
    by = f"the second is {towards} by {abs(row['difference']):.4g}"
    if row["better"]:
        by += f", which is {'better' if towards == row['better'] else 'worse'}"
    if row["significant"] is None:
        return f"{by}; no interval says whether by chance"
    if row["significant"]:
        return f"{by}; statistically significant"
    return f"{by}; not statistically significant, as the 95% interval holds 0"


if __name__ == "__main__":
    main()
