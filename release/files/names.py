"""Names that stand in a file which others may have written: which of them may become a path.

A release may come from a stranger. Whatever its manifest, its rows or a model's index name is
joined to a folder only if it is plain: relative, below that folder, and nothing hidden.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from release.errors import UserError
from release.files.storage import ReleasePath

if TYPE_CHECKING:
    from upath import UPath

Folder = TypeVar("Folder", bound="Path | UPath")
BARRED = frozenset("/\\:")
LONGEST = 255  # bytes of a file's name, on the file systems in use
RECIPE_NAME = re.compile(r"[\w-][\w.-]{0,99}")


def plain_path(text: str) -> str:
    """`text` if it names a file below the folder it is joined to; ValueError if it may not."""
    if not all(is_plain_part(part) for part in text.split("/")):
        raise ValueError(f"{text!r} is no plain path within: relative, without .. and hidden parts")
    return text


def plain_name(text: str) -> str:
    """`text` if it may be part of a folder's or file's name; ValueError if it may not."""
    if not RECIPE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no plain name: give letters, digits and . _ - alone")
    return text


def is_plain_part(part: str) -> bool:
    """Neither empty, "..", hidden, of another drive or protocol, nor with characters of control."""
    fits = 0 < len(part.encode(errors="replace")) <= LONGEST
    return fits and part.isprintable() and part[0] != "." and not set(part) & BARRED


def as_plain_part(text: str) -> str:
    """`text` with "-" for each character that a part may not have there."""
    plain = "".join("-" if c in BARRED or not c.isprintable() else c for c in text)
    return f"-{plain[1:]}" if plain[:1] == "." else plain


def within(folder: Folder, name: str) -> Folder:
    """`folder` / `name`, a name that came from a file; UserError if it leads elsewhere."""
    try:
        return folder / plain_path(name)  # type: ignore[return-value]
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None


def require_no_way_out(folder: ReleasePath) -> None:
    """UserError if a folder below `folder` is a link that leads out of it.

    What is written or deleted there would be another's. A URL has no links; a link to a file is
    replaced when it is written, not followed.
    """
    if not isinstance(folder, Path):
        return
    root = folder.resolve()
    for place, folders, _ in os.walk(folder):
        for path in (Path(place, name) for name in folders):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(
                    f"{path} is a link that leads out of {folder}, where nothing may be written: "
                    "put a folder in its place"
                )
