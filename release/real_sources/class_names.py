"""The classes that the names of folders give, and what is wrong with them."""

import unicodedata
from collections.abc import Mapping, Sequence, Sized

from release.classes.class_list import ClassEntry
from release.errors import UserError
from release.files.names import LONGEST, as_plain_part, is_plain_part
from release.real_sources.source import first_few


def classes_of(
    found: Mapping[str, Mapping[str, Sized]],
) -> tuple[tuple[ClassEntry, ...], list[str]]:
    """Classes in the order of their names, from the images of each class in each split; remarks.

    UserError for a class without images in any split, and for names of two splits that are the
    same but for case or for how accents are encoded.
    """
    names = sorted({name for classes in found.values() for name in classes})
    _require_one_spelling(names, found)
    empty = [n for n in names if not any(len(classes.get(n, ())) for classes in found.values())]
    if empty:
        raise UserError(
            f"class {first_few(empty)}: no images in any split ({', '.join(found)}); "
            "remove the folder, or put images in it"
        )
    remarks = []
    for split, classes in found.items():
        lacking = [name for name in names if not len(classes.get(name, ()))]
        if lacking:
            remarks.append(
                f"{split} has no images of {len(lacking)} of the {len(names)} classes: "
                f"{first_few(lacking)}"
            )
    return entries_of(names), remarks


def entries_of(names: Sequence[str]) -> tuple[ClassEntry, ...]:
    """A class for each name, its prompt, too, and its id but for characters that no id may have.

    UserError for two names that would have one id, and for one that is empty or too long.
    """
    entries: dict[str, ClassEntry] = {}
    for label, name in enumerate(names):
        wnid = as_plain_part(name)
        if not is_plain_part(wnid):
            raise UserError(f"class name {name[:50]!r}: give it 1 to {LONGEST} bytes")
        if wnid in entries:
            raise UserError(
                f"classes {entries[wnid].name!r} and {name!r} would both have the id {wnid!r}: "
                "rename one"
            )
        entries[wnid] = ClassEntry(label, wnid, name, name)
    return tuple(entries.values())


def _require_one_spelling(names: Sequence[str], found: Mapping[str, Mapping[str, Sized]]) -> None:
    """Two spellings in one split are two classes; in two splits they are one, misspelt."""
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    for first, *others in spelled.values():
        for other in others:
            if not any(first in classes and other in classes for classes in found.values()):
                raise UserError(
                    f"class folders {first!r} ({first!a}) and {other!r} ({other!a}) of "
                    "different splits differ only in case or in how accents are encoded: "
                    "rename one of them"
                )
