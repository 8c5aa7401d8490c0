"""Tables of images as `datasets` loads them: which columns, which classes, which labels."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from release.classes.class_list import ClassEntry, load_classes
from release.errors import UserError, unknown_name
from release.real_sources.class_names import entries_of
from release.real_sources.source import RealSource, SourceName, first_few, named_splits

# By name only where a column's type does not say what it holds.
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
MOST_GAPS, FEW = 10, 1000  # numbers up to 10 for each that occurs, and 1,000 more, pass for classes
LABEL_NAMES = ("label", "labels", "fine_label", "cls")


@dataclass(frozen=True)
class TableSplit:
    """A split of a data set that `datasets` loads; the bytes are not decoded.

    dataset: its images alone, for reading a row decodes all columns. whole: its fingerprint.
    """

    dataset: Any
    image: str
    labels: Sequence[int]
    whole: str

    def key(self, i: int) -> str:
        return f"{i:06d}"

    def version(self, i: int) -> str:  # noqa: ARG002 - it covers the whole split
        return self.whole

    def read(self, i: int) -> bytes:
        image = self.dataset[i][self.image]
        if image is None or image["bytes"] is image["path"] is None:
            raise UserError("is null")
        if image["bytes"] is None:
            return Path(image["path"]).read_bytes()
        return image["bytes"]  # type: ignore[no-any-return]


def read_tables(
    data: Mapping[str, Any], wanted: SourceName, name: str, license_name: str
) -> RealSource:
    """A source of every split that has labels.

    UserError for columns that are not clear, splits that differ in them, and labels that are
    missing in part or out of range.
    """
    from datasets import Image

    features = next(iter(data.values())).features
    image, label = _image_column(features, wanted), _label_column(features, wanted)
    for split, rows in data.items():
        if rows.features.get(label) != features[label]:
            raise UserError(f"{wanted.name}: {split} has another {label!r} than {next(iter(data))}")
    columns, remarks = _with_labels(data, label, wanted)
    classes, more = _classes(features[label], columns, wanted)
    number = {entry.name: entry.label for entry in classes}
    splits = {}
    for split, column in columns.items():
        values = column.to_pylist()
        labels = [number[v] for v in values] if pa.types.is_string(column.type) else values
        if max(labels) >= len(classes):
            raise UserError(f"{split}: label {max(labels)}, but there are {len(classes)} classes")
        undecoded = data[split].cast_column(image, Image(decode=False))
        alone = undecoded.select_columns([image])
        splits[split] = TableSplit(alone, image, labels, str(undecoded._fingerprint))
    return RealSource(
        name,
        license_name,
        classes,
        named_splits(splits),
        str(next(iter(data.values()))._fingerprint),
        (*remarks, *more),
    )


def _with_labels(
    data: Mapping[str, Any], label: str, wanted: SourceName
) -> tuple[dict[str, pa.ChunkedArray], list[str]]:
    """The labels of the splits that have them, and a remark on each that has none."""
    columns, remarks = {}, []
    for split, rows in data.items():
        column = rows.select_columns([label]).with_format("arrow")[:][label]
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_integer(column.type):
            column = column.cast(pa.int64(), safe=False)  # too large a number becomes negative
        missing = _count_missing(column)
        if missing == len(column):
            count = f"{len(column):,} images without labels" if len(column) else "no images"
            remarks.append(f"{split} is left out: {count}")
        elif missing:
            raise UserError(
                f"{wanted.name}: {missing:,} of {len(column):,} labels of {split} are missing "
                f"(null or negative in {label!r}); label or remove those rows"
            )
        else:
            columns[split] = column
    return columns, remarks


def _count_missing(column: pa.ChunkedArray) -> int:
    if pa.types.is_string(column.type):
        return int(pc.sum(pc.equal(pc.fill_null(column, ""), "")).as_py() or 0)
    return int(pc.sum(pc.less(pc.fill_null(column, -1), 0)).as_py() or 0)


def _classes(
    feature: Any, columns: Mapping[str, pa.ChunkedArray], wanted: SourceName
) -> tuple[tuple[ClassEntry, ...], list[str]]:
    """By the names that the column has, its distinct texts, or, last of all, its numbers."""
    from datasets import ClassLabel

    values = {v for column in columns.values() for v in pc.unique(column).to_pylist()}
    if not isinstance(feature, ClassLabel):
        if all(isinstance(value, str) for value in values):
            return entries_of(sorted(values)), []
        if wanted.classes_from is None:
            _require_class_numbers(values, wanted)
        return _numbered(max(values) + 1, wanted)
    lacking = [name for i, name in enumerate(feature.names) if i not in values]
    remark = f"no images of {len(lacking)} of the {len(feature.names)} classes: "
    return entries_of(feature.names), [remark + first_few(lacking)] if lacking and values else []


def _require_class_numbers(values: Set[int], wanted: SourceName) -> None:
    """UserError for numbers of which next to none occur: ids of something else, not of classes."""
    if max(values) >= MOST_GAPS * len(values) + FEW:
        raise UserError(
            f"{wanted.name}: labels are numbers up to {max(values):,}, of which {len(values):,} "
            "occur; number the classes from 0, name their list with --classes-from, or another "
            "column with --label-column"
        )


def _numbered(count: int, wanted: SourceName) -> tuple[tuple[ClassEntry, ...], list[str]]:
    """Numbers without names are trusted to be a list's ids only where the user says so."""
    if wanted.classes_from is None:
        remark = (
            f"labels are numbers without names: classes are called 0 to {count - 1}; "
            "--classes-from LIST takes them for the ids of a class list"
        )
        return entries_of([str(i) for i in range(count)]), [remark]
    entries = load_classes(wanted.classes_from)
    if count > len(entries):
        raise UserError(f"label {count - 1}, but {wanted.classes_from} has {len(entries)} classes")
    remark = f"labels are numbers without names: taken for the ids of {wanted.classes_from}"
    return entries_of([entry.wnid for entry in entries]), [remark]


def _image_column(features: Mapping[str, Any], wanted: SourceName) -> str:
    from datasets import Image

    typed = [k for k, f in features.items() if isinstance(f, Image)]
    named = [k for k, f in features.items() if k in IMAGE_NAMES and _may_hold_bytes(f)]
    allowed = [k for k, f in features.items() if isinstance(f, Image) or _may_hold_bytes(f)]
    return _the_column("image", wanted, typed or named, allowed, wanted.image_column, features)


def _may_hold_bytes(feature: Any) -> bool:
    if isinstance(feature, dict):
        return {"bytes", "path"} <= feature.keys()
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _label_column(features: Mapping[str, Any], wanted: SourceName) -> str:
    from datasets import ClassLabel

    typed = [k for k, f in features.items() if isinstance(f, ClassLabel)]
    allowed = [k for k, f in features.items() if k in typed or _may_be_labels(f)]
    named = [k for k in allowed if k in LABEL_NAMES]
    return _the_column("label", wanted, typed or named, allowed, wanted.label_column, features)


def _may_be_labels(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "string", "large_string"))


def _the_column(
    kind: str,
    wanted: SourceName,
    candidates: Sequence[str],
    allowed: Sequence[str],
    given: str | None,
    columns: Mapping[str, Any],
) -> str:
    """The one candidate, or the one that is given; UserError if neither says which."""
    if given is not None:
        if given not in allowed:
            raise unknown_name(f"{kind} column of {wanted.name}", given, allowed)
        return given
    if len(candidates) > 1:
        raise UserError(
            f"{wanted.name} has {len(candidates)} {kind} columns ({', '.join(candidates)}): "
            f"say which with --{kind}-column"
        )
    if not candidates:
        raise UserError(
            f"{wanted.name} has no {kind} column that is told by its type or name; say which of "
            f"{', '.join(columns)} it is with --{kind}-column"
        )
    return candidates[0]
