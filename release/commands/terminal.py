"""Text for a terminal: what others wrote is shown, and never acts as an escape sequence."""

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def printable(text: str) -> str:
    """`text` with control characters, escapes and what turns the reading direction spelled out.

    A line feed among them: one text is one line, or one cell of a table.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # any space


def counted(count: int, what: str) -> str:
    """`1 shard`, `2,000 shards`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def table_cell(text: str) -> "Text":
    """`text` for one of rich's tables: printable, and without markup such as [red]."""
    from rich.text import Text

    return Text(printable(text))
