"""The board's tables as plain values, for tests: each row with its cells, deviations and ends."""

from collections.abc import Sequence
from typing import Any

from cards.drawing.tables import Row, Table
from cards.pages.facet import Facet


def board_tables(facets: Sequence[Facet]) -> list[dict[str, Any]]:
    """One entry a facet."""
    return [
        {"dataset": facet.key, "tables": [_plain_table(table) for table in facet.tables]}
        for facet in facets
    ]


def _plain_table(table: Table) -> dict[str, Any]:
    return {
        "key": table.key,
        "published": table.published,
        "columns": {c.key: {"label": c.label, "better": c.better} for c in table.columns},
        "footnotes": list(table.footnotes),
        "groups": [
            {"title": g.title, "note": g.note, "rows": [_plain_row(row) for row in g.rows]}
            for g in table.groups
        ],
    }


def _plain_row(row: Row) -> dict[str, Any]:
    plain: dict[str, Any] = {"baseline": row.baseline}
    for key, cell in row.cells.items():
        if cell.value is None:
            continue
        plain[key] = cell.value
        if cell.std is not None:
            plain[f"{key}_std"] = cell.std
        if cell.interval is not None:
            plain[f"{key}_low"], plain[f"{key}_high"] = cell.interval
    return plain
