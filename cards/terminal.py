"""The leaderboard on a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cards.facet import Facet
from cards.tables import Group, Table
from generation.terminal import printable, table_cell

TEXT_WIDTH = 24  # a name is not broken into pieces shorter than this


def print_board(facets: Sequence[Facet]) -> None:
    """Every table, one a group, on standard output."""
    console = Console()
    wide = console.options.update(max_width=1000)
    for facet in facets:
        console.rule(Text(printable(facet.title), style="bold"))
        for table in facet.tables:
            console.print(Text(printable(table.title), style="bold"))
            for group in table.groups:
                rich = rich_table(table, group)
                least = rich.__rich_measure__(console, wide).minimum
                console.print(rich, width=max(console.width, least), crop=False)
            for note in table.footnotes:
                console.print(Text(printable(note), style="dim"))
            console.print()


def rich_table(table: Table, group: Group) -> RichTable:
    """One group; columns in which it has nothing are left out."""
    rich = RichTable(
        title=table_cell(group.title), title_justify="left", caption_justify="left", box=SIMPLE_HEAD
    )
    if group.note:
        rich.caption = table_cell(group.note)
    columns = [c for c in table.columns if any(r.cell(c.key).value is not None for r in group.rows)]
    for column in columns:
        widest = max(len(row.cell(column.key).text) for row in group.rows)
        shown = widest if column.numeric else min(widest, TEXT_WIDTH)
        rich.add_column(
            table_cell(column.heading),
            justify="right" if column.numeric else "left",
            min_width=max([shown, *map(len, column.heading.split())]),
        )
    for row in group.rows:
        cells = [table_cell(row.cell(c.key).text) for c in columns]
        rich.add_row(*cells, style="dim" if row.baseline else None)
    return rich
