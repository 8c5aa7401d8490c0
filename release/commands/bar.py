"""The bar of a command's progress, drawn by rich: count, rate of recent work, time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from release.commands.progress import Pace


@contextmanager
def draw_bar(
    console: Console, pace: Pace, label: str, unit: str
) -> Iterator[Callable[[int], None]]:
    """The bar takes the room that the numbers leave."""
    columns = (
        _text("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=1)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _text(unit),
        _Now(pace.rate_text),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        _Now(pace.left_text),
    )

    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task(label, total=pace.total)

        def advance(n: int) -> None:
            pace.advance(n, time.monotonic())
            progress.advance(task, n)

        yield advance


class _Now(ProgressColumn):
    """What the pace comes to each time it is drawn: a stall shows."""

    def __init__(self, say: Callable[[float], str]) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._say = say

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(self._say(time.monotonic()))


def _text(template: str) -> TextColumn:
    return TextColumn(template, table_column=Column(no_wrap=True))
