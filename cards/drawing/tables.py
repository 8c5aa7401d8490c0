"""A table as people read it: cells with text to show and a value to sort by, rows in groups.

Numbers of different groups are not comparable; sorting, ranking and filtering stay inside one.
The terminal, Markdown and the page all render these tables, so they all say the same; CSV and JSON
have the measurements behind them (cards/pages/board_data.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor, log10

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """text is shown, value, std and interval are what it was made from; value is sorted by.

    note: what a reader may want to know of this one cell.
    """

    text: str
    value: float | str | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None
    note: str = ""


EMPTY = Cell(MISSING)


@dataclass(frozen=True)
class Column:
    """better: the direction in which a value of this column is better, if it has one."""

    key: str
    label: str
    numeric: bool = True
    better: str = ""  # "higher", "lower" or ""
    help: str = ""

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")

    @property
    def heading(self) -> str:
        return f"{self.label} {self.arrow}".strip()


@dataclass(frozen=True)
class Row:
    """cells by column key; `baseline` rows (real images) stand in the table without a rank."""

    cells: dict[str, Cell]
    baseline: bool = False

    def cell(self, key: str) -> Cell:
        return self.cells.get(key, EMPTY)


@dataclass(frozen=True)
class Group:
    """Rows that may be compared with each other. note: why they stand apart from other groups."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """key: unique on the page; published: numbers taken from papers, not measured here."""

    key: str
    title: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    caption: str = ""
    footnotes: tuple[str, ...] = field(default=())
    published: bool = False

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def text_cell(text: str, note: str = "") -> Cell:
    """Words; an empty text is a missing one."""
    return Cell(text or MISSING, text or None, note=note)


def count_cell(count: int) -> Cell:
    """A whole number with its thousands told apart."""
    return Cell(f"{count:,}", count)


def signed(number: float, decimals: int) -> str:
    """With its sign, the minus as wide as the plus."""
    return f"{number:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def difference_cell(
    value: float, interval: tuple[float, float] | None, decimals: int, note: str = ""
) -> Cell:
    """ "+1.20 [+0.80, +1.60]"."""
    text = signed(value, decimals)
    if interval is not None:
        text += f" [{signed(interval[0], decimals)}, {signed(interval[1], decimals)}]"
    return Cell(text, value, interval=interval, note=note)


def decimals_for(values: Sequence[float]) -> int:
    """Decimals that show three or four digits of the largest value, the same for a whole column."""
    largest = max((abs(v) for v in values), default=0.0)
    if 0 < largest < 0.1:
        return min(6, 2 - floor(log10(largest)))
    return 1 if largest >= 100 else 2 if largest >= 10 else 3


def spread_cell(
    mean: float, std: float | None, interval: tuple[float, float] | None, decimals: int, note: str
) -> Cell:
    """ "mean ± std"; where there is no std, "mean [low, high]"."""
    text = f"{mean:.{decimals}f}"
    if std is not None:
        text += f" ± {std:.{decimals}f}"
    elif interval is not None:
        text += f" [{interval[0]:.{decimals}f}, {interval[1]:.{decimals}f}]"
    return Cell(text, mean, std, interval, note)
