"""Which files are images, and which are nobody's: what systems leave in folders and archives."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from release.errors import UserError

# Pillow reads more (.psd, .hdf, .mpg …), which are no photographs of a data set.
FORMATS = {"JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM"}
# Left behind by macOS, Synology, Windows and file systems; names that begin with a dot are, too.
LITTER = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin"}


@lru_cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the formats that this Pillow reads, in lower case."""
    known = Image.registered_extensions()
    return frozenset(s for s, name in known.items() if name in FORMATS and name in Image.OPEN)


def suffix(name: str) -> str:
    """In lower case, with its dot; "" where there is none. A million names pass here."""
    _, dot, end = name.rpartition(".")
    return f".{end.lower()}" if dot else ""


def only_images(names: Sequence[str], passed: Counter[str]) -> list[str]:
    """Those that are images by their suffix; the others are counted by it."""
    suffixes = image_suffixes()
    images = [name for name in names if suffix(name) in suffixes]
    if len(images) < len(names):
        passed.update(end for end in map(suffix, names) if end not in suffixes)
    return images


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is neither a class nor an image."""
    return name.startswith(".") or name.casefold() in LITTER


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in `folder`, each sorted; hidden ones are left out.

    UserError if it cannot be read, or holds a name that is not UTF-8.
    """
    folders, files = list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_hidden(entry.name):
                    (folders if _is_folder(entry) else files).append(entry.name)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}") from None
    for name in (*folders, *files):
        if not name.isascii():
            _require_utf8(folder, name)
    return sorted(folders), sorted(files)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: a file that cannot be read
        return False


def _require_utf8(folder: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{folder}: the name {os.fsencode(name)!r} is not UTF-8; rename it"
        ) from None


def suffix_counts(passed: Counter[str]) -> str:
    """Such as `3 .txt, 1 .xml`, of a count by suffix, the most frequent first."""
    order = sorted(passed.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {end or 'without a suffix'}" for end, count in order)
