"""Reading a folder of results: measurements, reports that stand for those below them, manifests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.manifest import MANIFEST_FILE, Manifest, read_manifest
from builder.results import read_result
from cards.report_schema import FinetuningReport, Report, SelectionReport, StudyReport
from cards.result_schema import AnyResult, parse_result
from generation.errors import UserError
from generation.validation import validated

MEASUREMENTS = ("classifier", "scores")
SELECTIONS = ("sampler-selection", "checkpoint-selection")
# Folders beside a report whose files it stands for: trainings that are compared there by arms,
# points that were scored on the tuning split, seeds that are averaged there.
STUDY_FOLDERS = ("runs",)
SELECTION_FOLDERS = ("results", "points", "cas", "parent*")
FINETUNING_FOLDERS = ("results",)


@dataclass(frozen=True)
class ResultFolder:
    """measurements: those that stand for themselves; manifests: copies of releases' own."""

    measurements: tuple[AnyResult, ...] = ()
    studies: tuple[StudyReport, ...] = ()
    selections: tuple[SelectionReport, ...] = ()
    finetunings: tuple[FinetuningReport, ...] = ()
    manifests: tuple[Manifest, ...] = ()

    @property
    def datasets(self) -> set[str]:
        """All that something is told about."""
        reports: tuple[Report, ...] = (*self.studies, *self.selections, *self.finetunings)
        return {r.result.dataset for r in self.measurements} | {r.dataset for r in reports}


def read_results(folder: Path) -> list[AnyResult]:
    """The measurements below `folder`, without those that a report stands for."""
    return list(read_folder(folder).measurements)


def read_folder(folder: Path) -> ResultFolder:
    """Raises UserError for a missing folder, a broken result or a broken report.

    A JSON object of no known shape, such as a fault campaign's, is passed over.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of result files")
    contents = {path: _load(path) for path in sorted(folder.rglob("*.json"))}
    models = {path: model for path, content in contents.items() if (model := _model(content))}
    reports = [_parse_report(m, p, contents) for p, m in models.items()]
    owned = _owned_folders(contents)
    own = [
        path
        for path in contents
        if _kind(contents[path]) not in SELECTIONS and owned.isdisjoint(path.parents)
    ]
    return ResultFolder(
        measurements=tuple(
            parse_result(path, read_result(path))
            for path in own
            if path.name != MANIFEST_FILE and not _is_another_record(contents[path])
        ),
        studies=tuple(r for r in reports if isinstance(r, StudyReport)),
        selections=tuple(r for r in reports if isinstance(r, SelectionReport)),
        finetunings=tuple(r for r in reports if isinstance(r, FinetuningReport)),
        manifests=tuple(read_manifest(p.parent) for p in own if p.name == MANIFEST_FILE),
    )


def _owned_folders(contents: Mapping[Path, Any]) -> set[Path]:
    """Folders whose files are told about by a report beside them."""
    owned = set()
    for path, content in contents.items():
        names: tuple[str, ...] = ()
        if _kind(content) in SELECTIONS:
            names = SELECTION_FOLDERS
        elif _model(content) is StudyReport:
            names = STUDY_FOLDERS
        elif _model(content) is FinetuningReport:
            names = FINETUNING_FOLDERS
        owned |= {folder for name in names for folder in path.parent.glob(name)}
    return owned


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None  # read_result says what is wrong with it


def _is_another_record(content: Any) -> bool:
    return isinstance(content, dict) and "kind" not in content


def _kind(content: Any) -> Any:
    return content.get("kind") if isinstance(content, dict) else None


def _model(content: Any) -> type[Report] | None:
    """Which report the content is, by what it holds."""
    if not isinstance(content, dict):
        return None
    if _kind(content) in SELECTIONS and "points" in content:
        return SelectionReport
    if {"study", "rows", "findings"} <= content.keys():
        return StudyReport
    if {"arms", "differences", "images_per_release"} <= content.keys():
        return FinetuningReport
    return None


def _parse_report(model: type[Report], path: Path, contents: Mapping[Path, Any]) -> Report:
    content: dict[str, Any] = {**contents[path], "path": path}
    if model is not StudyReport and "dataset" not in content:
        content["dataset"] = _dataset_below(path, contents)
    return validated(model, content, str(path))


def _dataset_below(path: Path, contents: Mapping[Path, Any]) -> str:
    """Of the results that the report was made from; reports of before did not say it."""
    found = {
        content.get("dataset")
        for other, content in contents.items()
        if other.is_relative_to(path.parent) and _kind(content) in MEASUREMENTS
    }
    if len(found) != 1:
        raise UserError(f"{path} does not say its dataset, nor do result files below its folder")
    return str(found.pop())
