"""The one exception a user's mistake raises: printed as a single line, exit code 2."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

HIDDEN = "***"
LISTED = 60  # names in one line
SHOWN = 200  # characters of what was given
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


def unknown_name(
    kind: str, name: str, options: Iterable[str], others: Iterable[str] = ()
) -> UserError:
    """The error for a name that is none of `options`, which it lists, the nearest one last.

    others: names that would do as well, and are too many to list.
    """
    known = sorted(options)
    unknown = f"unknown {kind} {shortened(name)!r}"
    if not known:
        return UserError(f"{unknown}; there is none")
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    listed = f"known: {', '.join(known[:LISTED])}{more}"
    return UserError(f"{unknown}; {listed}{nearest(name, [*known, *others])}")


def nearest(name: str, options: Iterable[str]) -> str:
    """What ends an error about a name that is nearly one of `options`; empty if none is near."""
    by_lower: dict[str, str] = {}
    for option in options:
        by_lower.setdefault(option.lower(), option)  # the first, which unknown_name lists
    close = get_close_matches(name.lower()[:SHOWN], by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def shortened(text: str) -> str:
    """`text`, or its beginning if it would fill the terminal."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
