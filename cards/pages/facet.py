"""What the board consists of: a facet a data set, its sections of tables, charts and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cards.drawing.charts import Spec
from cards.drawing.tables import Table
from cards.measured.class_changes import ClassChange
from cards.pages.board_data import Measurement, RankingFacts

VERDICTS = ("", "helped", "harmed", "not tested")  # as the page numbers them


@dataclass(frozen=True)
class View:
    """A chart: Vega-Lite specification, and what it shows in words."""

    key: str
    title: str
    caption: str
    spec: Spec
    published: bool = False


@dataclass(frozen=True)
class Picture:
    """uri: data URI of the image."""

    title: str
    caption: str
    uri: str


@dataclass(frozen=True)
class ClassView:
    """Per-class accuracy of one training set against real images alone.

    rule: when a class counts as helped or harmed, and why none does if it could not be tested.
    """

    label: str
    baseline: str
    rule: str
    changes: tuple[ClassChange, ...]
    tested: bool

    def packed(self, place: Mapping[str, int]) -> dict[str, Any]:
        """For the page: a row a class by its `place`; shares in tenths of a percent, for size."""
        rows: list[list[int] | None] = [None] * len(place)
        for c in self.changes:
            shares = (round(1000 * share) for share in (c.real, c.other, c.low, c.high))
            verdict = c.verdict if self.tested else "not tested"
            rows[place[c.wnid]] = [*shares, VERDICTS.index(verdict)]
        return {"label": self.label, "baseline": self.baseline, "rule": self.rule, "rows": rows}


@dataclass(frozen=True)
class SampleFigure:
    """rows: class name and data URI of its images side by side."""

    title: str
    caption: str
    side: int
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """What belongs together: tables, then charts, then pictures. key: unique on the page."""

    key: str
    title: str
    tables: tuple[Table, ...] = ()
    views: tuple[View, ...] = ()
    class_views: tuple[ClassView, ...] = ()
    pictures: tuple[Picture, ...] = ()
    samples: tuple[SampleFigure, ...] = ()


@dataclass(frozen=True)
class Facet:
    """All that is known about one data set. Facets never share a table.

    measurements, rankings: the same for programs, more of it and unrounded. answer: what a
    generated training set is worth, in a sentence.
    """

    key: str
    title: str
    sections: tuple[Section, ...]
    measurements: tuple[Measurement, ...] = ()
    rankings: tuple[RankingFacts, ...] = ()
    answer: str = ""

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(view for section in self.sections for view in section.views)

    @property
    def class_views(self) -> tuple[ClassView, ...]:
        return tuple(view for section in self.sections for view in section.class_views)
