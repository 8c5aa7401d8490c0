"""The one exception a user's mistake raises: printed as a single line, exit code 2."""

from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message names the input and says what would be right."""


def unknown_name(kind: str, name: str, options: Iterable[str]) -> UserError:
    """The error for a name that is none of `options`, which it lists."""
    return UserError(f"unknown {kind} {name!r}; known: {', '.join(sorted(options))}")
