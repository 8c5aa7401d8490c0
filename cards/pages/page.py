"""Writing the leaderboard: one self-contained HTML page, Markdown, CSV and JSON."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from cards.drawing.charts import class_chart, vega_bundle
from cards.drawing.markdown_text import markdown_text
from cards.drawing.tables import Cell, Column, Table
from cards.pages.data_files import render_classes_csv, render_csv, render_json
from cards.pages.facet import Facet
from release.files.commit import TEMPORARY, write_atomically

TEMPLATES = Path(__file__).parent / "templates"
WORDS = re.compile(r"(\s+)")
LONGEST_TOKEN = 30  # characters of a phone's line


def template_environment(markup: Literal["html", "markdown"]) -> jinja2.Environment:
    """Templates of this package; an unknown name in one is an error, text is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=markup == "html",
        finalize=markdown_text if markup == "markdown" else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def write_site(facets: Sequence[Facet], out: Path) -> list[Path]:
    """index.html, leaderboard.md, .csv, .json and classes.csv in `out`; returns their paths."""
    contents = {
        "index.html": render_html(facets),
        "leaderboard.md": render_markdown(facets),
        "leaderboard.csv": render_csv(facets),
        "leaderboard.json": render_json(facets),
        "classes.csv": render_classes_csv(facets),
    }
    for name, content in contents.items():
        write_atomically(out / name, content.encode())
        for left in out.glob(f".{name}.*{TEMPORARY}"):
            left.unlink(missing_ok=True)  # by a run that was killed
    return [out / name for name in contents]


def render_html(facets: Sequence[Facet], template: str = "page.html", **more: Any) -> str:
    """The page; it loads nothing from anywhere.

    template: page.html or one that extends it, which is also given `more`.
    """
    environment = template_environment("html")
    environment.globals["padding"] = decimal_padding
    environment.filters["unbroken"] = unbroken
    return environment.get_template(template).render(
        facets=facets, data=_script_json(_page_data(facets)), vega=vega_bundle(), **more
    )


def unbroken(text: str) -> Markup:
    """`text` as HTML whose options, settings, numbers and names in code stay on one line each.

    A browser may break them at a hyphen, and in a narrow table anywhere. Words too long for a
    phone's line are left to it.
    """
    return Markup("").join(
        Markup('<span class="token">{}</span>').format(word) if _is_token(word) else word
        for word in WORDS.split(text)
    )


def _is_token(word: str) -> bool:
    code = word.startswith("--") or "=" in word or word.count("-") > 1
    return len(word) <= LONGEST_TOKEN and (code or any(map(str.isdigit, word)))


def decimal_padding(table: Table, column: Column, cell: Cell) -> str:
    """Figure spaces behind a number so that the decimal points of a column stand in line."""
    if not column.numeric or not isinstance(cell.value, int | float):
        return ""
    longest = max((_decimals(row.cell(column.key)) for row in table.rows), default=0)
    missing = longest - _decimals(cell)
    if not missing or " " in cell.text:
        return ""
    point = "\N{PUNCTUATION SPACE}" if missing == longest else ""
    return point + "\N{FIGURE SPACE}" * (missing - 1 if missing == longest else missing)


def _decimals(cell: Cell) -> int:
    """Characters from the decimal point on: 3 in "1.25"."""
    if not isinstance(cell.value, int | float):
        return 0
    number = cell.text.split(" ")[0]
    return len(number) - number.index(".") if "." in number else 0


def _page_data(facets: Sequence[Facet]) -> dict[str, Any]:
    return {facet.key: _facet_data(facet) for facet in facets}


def _facet_data(facet: Facet) -> dict[str, Any]:
    names = {c.wnid: c.name for view in facet.class_views for c in view.changes}
    place = {wnid: i for i, wnid in enumerate(names)}
    return {
        "views": {view.key: view.spec for view in facet.views},
        "classSpec": class_chart() if facet.class_views else None,
        "classNames": list(names.values()),
        "classViews": {
            section.key: [view.packed(place) for view in section.class_views]
            for section in facet.sections
        },
    }


def _script_json(content: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def render_markdown(facets: Sequence[Facet]) -> str:
    """Every table as Markdown, one a group."""
    environment = template_environment("markdown")
    return environment.get_template("leaderboard.md").render(facets=facets)
