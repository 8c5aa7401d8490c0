"""Class lists: which classes a release has, in label order, and what each is prompted with."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from release.commands.named_files import is_file, named_file, names_in
from release.errors import UserError, unknown_name
from release.files.names import is_plain_part
from release.files.storage import ReleasePath, read_bytes, release_path

BUILTIN = Path(__file__).parent / "lists"
DEFINITIONS = Path(__file__).parent / "definitions"  # WordNet's, with its licence
COLUMNS = ("id", "wnid", "name", "prompt")
RELEASE_FILE = "manifest.json"  # of a release, which holds its class list, too


@dataclass(frozen=True)
class ClassEntry:
    """One class. wnid: its stable id (WordNet's for ImageNet); name: what people read."""

    label: int
    wnid: str
    name: str
    prompt: str


def load_classes(source: str) -> tuple[ClassEntry, ...]:
    """A built-in list by name, a CSV with columns id, wnid, name, prompt, or a release.

    Raises UserError for an unknown name, a file that is no CSV in UTF-8, a missing column, ids
    that are not 0, 1, 2 …, or a wnid, name or prompt that stands twice.
    """
    path, rows = _rows_of(source)
    missing = [c for c in COLUMNS if not rows or rows[0].get(c) is None]
    if missing:
        raise UserError(f"class list {path}: no column {missing[0]!r}; need {', '.join(COLUMNS)}")
    if [row["id"] for row in rows] != [str(i) for i in range(len(rows))]:
        raise UserError(f"class list {path}: ids must count 0, 1, 2 … in order")
    for wnid in (row["wnid"] for row in rows):
        if wnid and not is_plain_part(wnid):
            raise UserError(
                f"class list {path}: wnid {wnid!r} becomes part of names: leave / \\ : and control "
                "characters out, and a dot in front"
            )
    for column in ("wnid", "name", "prompt"):
        _require_distinct(path, column, [row[column] for row in rows])
    return tuple(ClassEntry(int(r["id"]), r["wnid"], r["name"], r["prompt"]) for r in rows)


def _rows_of(source: str) -> tuple[ReleasePath, list[dict[str, str]]]:
    """The file that holds the list, and its rows as text."""
    manifest = release_path(source) / RELEASE_FILE
    if not isinstance(manifest, Path) or is_file(manifest):
        try:
            classes = json.loads(read_bytes(manifest))["classes"]
            return manifest, [{**entry, "id": str(entry["label"])} for entry in classes]
        except FileNotFoundError:
            raise UserError(f"class list {source}: there is no {RELEASE_FILE}") from None
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"class list {manifest} cannot be read: {error}") from None
    path = named_file("class list", BUILTIN, ".csv", source)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return path, list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"class list {path} cannot be read as CSV in UTF-8: {error}") from None


def builtin_lists() -> list[str]:
    """Names of the built-in lists."""
    return names_in(BUILTIN, ".csv")


def class_definitions(classes: Sequence[ClassEntry]) -> dict[str, str]:
    """What WordNet says of each class, by wnid; UserError names a class that it does not know."""
    found: dict[str, str] = {}
    for path in DEFINITIONS.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            found |= {row["wnid"]: row["definition"] for row in csv.DictReader(file)}
    for entry in classes:
        if entry.wnid not in found:
            raise UserError(
                f"class {entry.wnid} has no definition here, only ImageNet-1k's synsets have: "
                "leave {definition} out of the templates, or give [prompts.definitions]"
            )
    return {entry.wnid: found[entry.wnid] for entry in classes}


def same_classes(a: Sequence[ClassEntry], b: Sequence[ClassEntry]) -> bool:
    """Whether a label means the same class in both: by wnid, whatever names and prompts say."""
    return [entry.wnid for entry in a] == [entry.wnid for entry in b]


def class_difference(ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    """The first difference between two lists of wnids in label order; None if there is none."""
    if len(ours) != len(theirs):
        longer, shorter = sorted((ours, theirs), key=len, reverse=True)
        known = set(shorter)
        extra = next(wnid for wnid in longer if wnid not in known)
        return f"{len(ours)} and {len(theirs)} classes, of which one has {extra!r} and one has not"
    for label, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        if our != their:
            return f"label {label} is {our!r} and {their!r}"
    return None


def select_classes(classes: tuple[ClassEntry, ...], wanted: str) -> tuple[ClassEntry, ...]:
    """The classes named in a comma-separated list of wnids or names, in label order."""
    by_name = {c.wnid: c for c in classes} | {c.name: c for c in classes}
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in by_name:
            raise unknown_name("class", name, [c.wnid for c in classes], by_name)
    if not names:
        raise UserError("--classes names no class")
    return tuple(sorted({by_name[name] for name in names}, key=lambda c: c.label))


def _require_distinct(path: ReleasePath, column: str, values: list[str]) -> None:
    for value, count in Counter(values).items():
        if not value or count > 1:
            raise UserError(f"class list {path}: {column} {value!r} is empty or stands twice")
