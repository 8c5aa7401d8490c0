"""Reading a folder of results: measurements, reports that stand for those below them, manifests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards.measured.predictions_check import check_against_predictions
from cards.measured.report_schema import SELECTIONS, AnyReport, FinetuningReport, report_model
from cards.measured.result_schema import AnyResult, ClassifierResult, parse_result, result_models
from classifiers.study.report_model import StudyReport
from metrics.selection.report_model import SelectionReport
from release.commands.named_files import no_folder
from release.commands.progress import progress_bar
from release.commands.validation import validated
from release.errors import UserError
from release.layout.manifest import MANIFEST_FILE, Manifest, read_manifest
from release.results.result import read_result

# Folders beside a report whose files it stands for: trainings that are compared there by arms,
# points that were scored on the tuning split, seeds that are averaged there.
STUDY_FOLDERS = ("runs",)
SELECTION_FOLDERS = ("results", "points", "cas", "parent*")
FINETUNING_FOLDERS = ("results",)
MANY = 100  # results, which take seconds to read with the predictions beside them


@dataclass(frozen=True)
class ResultFolder:
    """measurements: those that stand for themselves; manifests: copies of releases' own.

    folder: all files are below it. passed_over: JSON files that are none of these.
    """

    measurements: tuple[AnyResult, ...] = ()
    studies: tuple[StudyReport, ...] = ()
    selections: tuple[SelectionReport, ...] = ()
    finetunings: tuple[FinetuningReport, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    folder: Path = Path()
    passed_over: tuple[Path, ...] = ()

    @property
    def datasets(self) -> set[str]:
        """All that something is told about."""
        reports: tuple[AnyReport, ...] = (*self.studies, *self.selections, *self.finetunings)
        return {r.result.dataset for r in self.measurements} | {r.dataset for r in reports}


def read_results(folder: Path) -> list[AnyResult]:
    """The measurements below `folder`, without those that a report stands for."""
    return list(read_folder(folder).measurements)


def read_folder(folder: Path, *, quiet: bool = True) -> ResultFolder:
    """Raises UserError for a missing folder, a broken result or report, or one that was changed.

    A classifier's result is checked against the predictions beside it. JSON of no known shape,
    such as a build's or a fault campaign's, is passed over, and so are hidden folders. quiet:
    without progress.
    """
    if reason := no_folder(folder):
        raise UserError(f"{folder} is not a folder of result files: {reason}")
    contents = {path: _load(path) for path in _json_files(folder)}
    models = {path: model for path, content in contents.items() if (model := report_model(content))}
    reports = [_parse_report(m, p, contents) for p, m in models.items()]
    owned = _owned_folders(contents)
    own = [path for path in contents if owned.isdisjoint(path.parents) and path not in models]
    results = [path for path in own if _is_measurement(contents[path])]
    manifests = [path for path in own if _is_manifest(path, contents[path])]
    measurements, quiet = [], quiet or len(results) < MANY
    with progress_bar(len(results), "reading", "results", quiet=quiet) as advance:
        for path in results:
            measurements.append(_checked(parse_result(path, read_result(path))))
            advance(1)
    return ResultFolder(
        measurements=tuple(measurements),
        studies=tuple(r for r in reports if isinstance(r, StudyReport)),
        selections=tuple(r for r in reports if isinstance(r, SelectionReport)),
        finetunings=tuple(r for r in reports if isinstance(r, FinetuningReport)),
        manifests=tuple(read_manifest(path.parent) for path in manifests),
        folder=folder,
        passed_over=tuple(path for path in own if path not in {*results, *manifests}),
    )


def _json_files(folder: Path) -> list[Path]:
    """Those below the folder, without hidden folders, such as an environment's."""
    return [
        path
        for path in sorted(folder.rglob("*.json"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]


def _is_measurement(content: Any) -> bool:
    """A result of this project, whole or not: `read_result` says what is wrong with it."""
    kind = _kind(content)
    return kind is not None and (kind in tuple(result_models()) or "protocol_sha256" in content)


def _is_manifest(path: Path, content: Any) -> bool:
    return path.name == MANIFEST_FILE and isinstance(content, dict) and "shards" in content


def _checked(result: AnyResult) -> AnyResult:
    if isinstance(result, ClassifierResult):
        return result.model_copy(update={"checked": check_against_predictions(result)})
    return result


def _owned_folders(contents: Mapping[Path, Any]) -> set[Path]:
    """Folders whose files are told about by a report beside them."""
    owned = set()
    for path, content in contents.items():
        names: tuple[str, ...] = ()
        if _kind(content) in SELECTIONS:
            names = SELECTION_FOLDERS
        elif report_model(content) is StudyReport:
            names = STUDY_FOLDERS
        elif report_model(content) is FinetuningReport:
            names = FINETUNING_FOLDERS
        owned |= {folder for name in names for folder in path.parent.glob(name)}
    return owned


def _load(path: Path) -> Any:
    """None for what is no JSON; UserError if a result's text can be seen in it."""
    text = path.read_bytes()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        marks = (f'"kind": "{kind}"'.encode() for kind in result_models())
        if any(mark in text for mark in (b'"protocol_sha256"', *marks)):
            raise UserError(f"{path} is not a result file: {error}") from None
        return None


def _kind(content: Any) -> Any:
    return content.get("kind") if isinstance(content, dict) else None


def _parse_report(model: type[AnyReport], path: Path, contents: Mapping[Path, Any]) -> AnyReport:
    content: dict[str, Any] = {**contents[path], "path": path}
    if model is not StudyReport and "dataset" not in content:
        content["dataset"] = _dataset_below(path, contents)
    return validated(model, content, str(path))


def _dataset_below(path: Path, contents: Mapping[Path, Any]) -> str:
    """Of the results that the report was made from; reports of before did not say it."""
    found = {
        content.get("dataset")
        for other, content in contents.items()
        if other.is_relative_to(path.parent) and _kind(content) in tuple(result_models())
    }
    if len(found) != 1:
        raise UserError(f"{path} does not say its dataset, nor do result files below its folder")
    return str(found.pop())
