"""The one exception a user's mistake raises: printed as a single line, exit code 2."""

import re
from collections.abc import Iterable

HIDDEN = "***"
# Of an address: what stands before @, if it is more than a name (a container's, a user's), and
# parameters that open a door.
USER = re.compile(r"(://)[^\s/@:]*:(?!\d+/)\S*@|(https?://)[^\s/@:?#]{12,}@")
PARAMETER = re.compile(
    r"([?&][\w.-]*(?:token|key|secret|passw|pwd|sig|credential|auth)[\w.-]*=)[^&\s\"'<>)\],;]+",
    re.IGNORECASE,
)


class UserError(Exception):
    """Bad input. The message names the input and says what would be right."""


def redacted(text: str) -> str:
    """`text` without passwords, tokens and keys in the addresses that stand in it."""
    if "://" not in text and "=" not in text:
        return text
    hidden = USER.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}@", text)
    return PARAMETER.sub(rf"\1{HIDDEN}", hidden)


def unknown_name(kind: str, name: str, options: Iterable[str]) -> UserError:
    """The error for a name that is none of `options`, which it lists."""
    return UserError(f"unknown {kind} {name!r}; known: {', '.join(sorted(options))}")
