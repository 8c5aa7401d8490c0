"""Text from files in Markdown: no raw HTML, no links, no cells or lines of its own making."""

from typing import Any

from release.commands.terminal import printable


class Verbatim(str):
    """Text that stands inside a fence, or is Markdown on purpose."""

    __slots__ = ()


def markdown_text(value: Any) -> Any:
    """`value` as it may stand in a paragraph, a list or a table's cell, on one line."""
    if not isinstance(value, str) or isinstance(value, Verbatim):
        return value
    text = printable(" ".join(value.splitlines()))
    for raw, harmless in (("<", "&lt;"), ("](", "]\\("), ("|", "\\|")):
        text = text.replace(raw, harmless)
    return text


def fenced(text: str) -> Verbatim:
    """`text` as it may stand between two fences: it cannot close them."""
    lines = (printable(line) for line in text.split("\n"))
    return Verbatim("\n".join(lines).replace("```", "'''"))
