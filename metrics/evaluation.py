"""A kind of result that is open to all: what its values are called and what its table says.

A command writes results of such a kind with `EvaluationSubject` as the subject and `ScoredValue`
as each value. Leaderboard and card then show them; `metrics/evaluations.py` lists the kinds.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from classifiers.training.result_values import Source
from metrics.features.extractors import require_batch
from metrics.scoring.metric import ValueName
from metrics.scoring.result_values import ScoredValue
from release.commands.named_files import require_folder
from release.commands.terminal import table_cell
from release.commands.validation import validated
from release.errors import UserError
from release.files.commit import alone_in, canonical_json
from release.results.result import Result, read_result
from release.results.values import Part


@dataclass(frozen=True)
class Evaluation:
    """kind: of the result. title, caption: of its table. names: of its values, in order."""

    kind: str
    title: str
    caption: str
    names: Mapping[str, ValueName]


class Network(Part):
    """How a network sees images; weights_sha256: of the file that holds it."""

    extractor: str
    weights_sha256: str
    input_size: int
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class EvaluationSubject(Part):
    """What was evaluated: system, its name; sources: the releases it learned from, where known."""

    system: str
    sources: tuple[Source, ...] = ()
    network: Network


@dataclass(frozen=True)
class Step:
    """One value of a result: how it is computed, and the settings that two such values share."""

    compute: Callable[[], dict[str, Any]]
    settings: dict[str, Any]


def complete(
    path: Path, bare: Result, steps: Mapping[str, Step], names: Mapping[str, ValueName]
) -> Result:
    """The result at `path` with a value for each step, written after each of them.

    bare: without values. A value that the file already holds with the same settings stays, and so
    does one that another process writes meanwhile. UserError if the file holds another measurement.
    """
    values = _known_values(path, bare)
    result = replace(bare, values=values)
    for name, step in steps.items():
        if values.get(name, {}).get("settings") == step.settings:
            continue
        better = {"better": names[name].better} if name in names and names[name].better else {}
        value = {**better, **step.compute(), "settings": step.settings}
        checked = validated(ScoredValue, value, f"{name} of {path}").content()
        with alone_in(path.parent):
            values = {**_known_values(path, bare), name: checked}
            result = replace(bare, values=values)
            result.write(path)
    return result


def with_values_of(path: Path, result: Result) -> Result:
    """`result`, with the values beside its own that the file at `path` has of the same images."""
    try:
        found = read_result(path)
    except UserError:  # none there, or none that can be read
        return result
    if _identity(found) != _identity(result):
        return result
    return replace(result, values={**found.values, **result.values})


def _known_values(path: Path, bare: Result) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = read_result(path)
    if _identity(found) != _identity(bare):
        raise UserError(
            f"{path} holds another measurement: of another network, or of other images; "
            "remove it or give another --out"
        )
    return found.values


def _identity(result: Result) -> str:
    """All but the values, and what they were computed with."""
    return canonical_json(asdict(replace(result, values={}, environment={})))


def require_places(batch: int, out: Path, cache: Path) -> None:
    """UserError, before anything is loaded, for options that could not be used."""
    require_batch(batch)
    require_folder(out, "--out")
    require_folder(cache, "--cache")


def print_results(
    written: Mapping[Path, Result], names: Mapping[str, ValueName], *, as_json: bool
) -> None:
    """As JSON by path; else one row a value, then the files."""
    if as_json:
        print(json.dumps({str(path): asdict(result) for path, result in written.items()}, indent=1))
    else:
        _print_values(written, names)


def _print_values(written: Mapping[Path, Result], names: Mapping[str, ValueName]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("system", "data set", "value", "n", "estimate", "95% interval"):
        table.add_column(column, justify="left" if column in ("system", "data set") else "right")
    for result in written.values():
        for key, value in result.values.items():
            ends = value.get("interval")
            table.add_row(
                table_cell(result.subject["system"]),
                table_cell(f"{result.reference['name']}:{result.reference['config']}"),
                names[key].label if key in names else key.replace("_", " "),
                f"{value['n']:,}",
                f"{value['value']:.4f}",
                f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "",
            )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for path in written:
        print(path)
