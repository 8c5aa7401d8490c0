"""The leaderboard's CSV and JSON, and how text in them is kept from becoming a formula."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from cards.pages.board_data import SCHEMA_VERSION, BoardData, ClassComparison, Measurement
from cards.pages.facet import ClassView, Facet
from release.results.statistics import CONFIDENCE

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the start of one


def board_data(facets: Sequence[Facet]) -> BoardData:
    """All facets together."""
    return BoardData(
        measurements=tuple(row for facet in facets for row in facet.measurements),
        classes=tuple(row for f in facets for v in f.class_views for row in _class_rows(f.key, v)),
        rankings=tuple(ranking for facet in facets for ranking in facet.rankings),
    )


def _class_rows(dataset: str, view: ClassView) -> Iterable[ClassComparison]:
    untold = "not significant" if view.tested else "not tested"
    for change in view.changes:
        yield ClassComparison(
            dataset=dataset,
            training_set=view.label,
            baseline=view.baseline,
            class_id=change.wnid,
            class_name=change.name,
            n=change.n,
            baseline_top1=change.real,
            top1=change.other,
            difference=change.difference,
            low=change.low,
            high=change.high,
            confidence=CONFIDENCE,
            verdict=change.verdict or untold,  # type: ignore[arg-type]
        )


def render_json(facets: Sequence[Facet]) -> str:
    """BoardData as text."""
    content = board_data(facets).model_dump(mode="json")
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_csv(facets: Sequence[Facet]) -> str:
    """One row a measurement."""
    return _csv_text(Measurement, board_data(facets).measurements)


def render_classes_csv(facets: Sequence[Facet]) -> str:
    """Every class of every comparison."""
    return _csv_text(ClassComparison, board_data(facets).classes)


def _csv_text(model: type[BaseModel], rows: Iterable[BaseModel]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # lines end as RFC 4180 says, so that returns in text are quoted
    writer.writerow(["schema_version", *model.model_fields])
    for row in rows:
        writer.writerow([SCHEMA_VERSION, *map(_csv_cell, row.model_dump(mode="json").values())])
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    """Numbers as they are; no text begins as a formula does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = ";".join(value)
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return value
