"""The leaderboard on a terminal."""

from collections.abc import Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cards.drawing.tables import Group, Table
from cards.pages.facet import Facet
from release.commands.terminal import counted, printable

FIRST = 5  # rows
COLUMNS = 6
TEXT_WIDTH = 24  # a name is not broken into pieces shorter than this


def print_board(facets: Sequence[Facet], *, every: bool = True) -> None:
    """On standard output: every table, one a group; else each data set's answer and first rows."""
    console = Console()
    for facet in facets:
        console.print()
        console.rule(_shown(facet.title, style="bold"))
        console.print(_shown(facet.answer))
        tables = facet.tables if every else tuple(map(_beginning, facet.tables[:1]))
        for table in tables:
            _print_table(console, table, whole=every)
        hidden = _rows(facet.tables) - _rows(tables)
        if hidden:
            console.print(
                _shown(
                    f"{counted(hidden, 'more row')} in {counted(len(facet.tables), 'table')}: "
                    "--all prints them, --out SITE writes them as a page",
                    style="dim",
                )
            )


def _rows(tables: Sequence[Table]) -> int:
    return sum(len(table.rows) for table in tables)


def _print_table(console: Console, table: Table, *, whole: bool) -> None:
    """whole: with its footnotes."""
    wide = console.options.update(max_width=1000)
    console.print(_shown(table.title, style="bold"))
    for group in table.groups:
        rich = rich_table(table, group)
        least = rich.__rich_measure__(console, wide).minimum
        console.print(rich, width=max(console.width, least), crop=False)
    if whole:
        for note in table.footnotes:
            console.print(_shown(note, style="dim"))
    console.print()


def _beginning(table: Table) -> Table:
    """The first rows of the group with most, in the columns that say most."""
    group = max(table.groups, key=lambda group: len(group.rows))
    short = replace(group, rows=group.rows[:FIRST], note="")
    return replace(table, columns=table.columns[:COLUMNS], groups=(short,))


def rich_table(table: Table, group: Group) -> RichTable:
    """One group; columns in which it has nothing are left out."""
    rich = RichTable(
        title=_shown(group.title), title_justify="left", caption_justify="left", box=SIMPLE_HEAD
    )
    if group.note:
        rich.caption = _shown(group.note)
    columns = [c for c in table.columns if any(r.cell(c.key).value is not None for r in group.rows)]
    for column in columns:
        widest = max(len(row.cell(column.key).text) for row in group.rows)
        shown = widest if column.numeric else min(widest, TEXT_WIDTH)
        rich.add_column(
            _shown(column.heading),
            justify="right" if column.numeric else "left",
            min_width=max([shown, *map(len, column.heading.split())]),
        )
    for row in group.rows:
        cells = [_shown(row.cell(c.key).text) for c in columns]
        rich.add_row(*cells, style="dim" if row.baseline else None)
    return rich


def _shown(text: str, style: str = "") -> Text:
    """Text from a file: it controls nothing."""
    return Text(printable(text), style=style)
