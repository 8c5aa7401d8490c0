"""Classes join their list: a source's classes become those of a class list, found by their names.

So a release of ImageNet has the ids, names, order and data set name of the list that recipes use,
wherever it came from, and can be compared with what recipes make.
"""

import importlib.util
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from release.classes.class_list import ClassEntry, builtin_lists, load_classes
from release.errors import UserError
from release.real_sources.source import JoinedList, RealSource, RealSplit, first_few

WORDNET_ID = re.compile(r"n\d{8}")
OPTION = "--classes-from LIST (a built-in list's name or a CSV)"


@dataclass(frozen=True)
class RelabelledSplit:
    """A split with the labels of another class list."""

    split: RealSplit
    labels: Sequence[int]

    def key(self, i: int) -> str:
        return self.split.key(i)

    def version(self, i: int) -> str:
        return self.split.version(i)

    def read(self, i: int) -> bytes:
        return self.split.read(i)


def join_list(source: RealSource, wanted: str | None) -> RealSource:
    """`source` with the classes of the list `wanted`, or of the built-in one that they are of.

    Found by itself: classes that are WordNet ids of a list, all or some of them, and classes that
    are a whole list by their ids or names. UserError if `wanted` lacks a class of the source.
    """
    names = [entry.name for entry in source.classes]
    if not names:
        return source
    if wanted is not None:
        entries = load_classes(wanted)
        found = _match(names, entries)
        if None in found:
            raise _unmatched(names, found, wanted)
        return _joined(source, wanted, entries, [label for label in found if label is not None])
    remarks = []
    for name in builtin_lists():
        entries = load_classes(name)
        found = _match(names, entries)
        labels = [label for label in found if label is not None]
        ids = {entry.wnid for entry in entries}
        by_wordnet = [n for n in names if n in ids and WORDNET_ID.fullmatch(n)]
        if len(labels) == len(names) and len(names) in (len(by_wordnet), len(entries)):
            return _joined(source, name, entries, labels)
        if len(labels) == len(names):
            remarks.append(
                f"all {len(names)} classes are named as in {name}: --classes-from {name} joins them"
            )
        elif by_wordnet:
            others = [n for n, label in zip(names, found, strict=True) if label is None]
            remarks.append(
                f"classes are the source's own, not those of {name}, which has "
                f"{len(by_wordnet)} of them but not {first_few(others)}"
            )
    return replace(source, remarks=(*source.remarks, *remarks))


def _joined(
    source: RealSource, wanted: str, entries: Sequence[ClassEntry], labels: Sequence[int]
) -> RealSource:
    """labels: for each class of the source, its label in the list."""
    _require_one_each(source, entries, labels)
    chosen = tuple(sorted(labels))
    new = {label: i for i, label in enumerate(chosen)}
    splits = {
        name: RelabelledSplit(split, [new[labels[old]] for old in split.labels])
        for name, split in source.splits.items()
    }
    about = f"{len(chosen)} of the {len(entries)}" if len(chosen) < len(entries) else "all"
    name = Path(wanted).name  # of a CSV without its folder
    remark = f"classes are {about} classes of {name}"
    return replace(
        source,
        name=source.name if name.endswith(".csv") else name,
        classes=tuple(replace(entries[label], label=i) for i, label in enumerate(chosen)),
        splits=splits,
        remarks=(*source.remarks, remark),
        joined=JoinedList(name, chosen, len(entries)),
    )


def _require_one_each(
    source: RealSource, entries: Sequence[ClassEntry], labels: Sequence[int]
) -> None:
    first: dict[int, str] = {}
    for entry, label in zip(source.classes, labels, strict=True):
        if label in first:
            raise UserError(
                f"classes {first[label]!r} and {entry.wnid!r} are both {entries[label].wnid} "
                f"({entries[label].name}): make them one"
            )
        first[label] = entry.wnid


def _unmatched(names: Sequence[str], found: Sequence[int | None], wanted: str) -> UserError:
    missing = [name for name, label in zip(names, found, strict=True) if label is None]
    return UserError(
        f"class list {wanted} has no class {first_few(missing)}, neither as id nor as name: give "
        f"the list that has them with {OPTION}, or leave --classes-from out"
    )


def _match(names: Sequence[str], entries: Sequence[ClassEntry]) -> list[int | None]:
    """The label of each name in the list; None for a name that means no class, or several."""
    ids = {entry.wnid: entry.label for entry in entries}
    whole, parts = _meanings(entries)
    spelled = set(map(_spelling, names))
    found: list[int | None] = []
    for name in names:
        text = _spelling(name)
        meant = sorted(whole.get(text) or parts.get(text) or ())
        if f"{text}2" in spelled:  # told apart by a number: this is the first of them
            meant = meant[:1]
        found.append(ids.get(name, meant[0] if len(meant) == 1 else None))
    return found


def _meanings(
    entries: Sequence[ClassEntry],
) -> tuple[Mapping[str, set[int]], Mapping[str, set[int]]]:
    """Labels by what a class may be called: as a whole; by one of its synonyms."""
    whole: dict[str, set[int]] = {}
    parts: dict[str, set[int]] = {}
    for entry in entries:
        lemmas = _lemmas().get(entry.wnid, "")
        for text in {*map(_spelling, (entry.name, entry.prompt, lemmas))} - {""}:
            whole.setdefault(text, set()).add(entry.label)
        for text in map(_spelling, lemmas.split(", ")):
            parts.setdefault(text, set()).add(entry.label)
    for text, labels in list(whole.items()):
        # Names of a Hub data set are distinct: ImageNet's cranes are "crane" and "crane2".
        for number, label in enumerate(sorted(labels)[1:], start=2):
            whole.setdefault(f"{text}{number}", set()).add(label)
    return whole, parts


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", name).replace("_", " ").strip()


@lru_cache
def _lemmas() -> Mapping[str, str]:
    """WordNet's synonyms of each synset as timm has them: "tench, Tinca tinca" of n01440764.

    From timm's file, not through ImageNetInfo: importing timm imports torch, for seconds, and
    every process that reads a source would.
    """
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return dict(rows)
