"""The checks of one shard: its bytes, its marker, its rows against the plan, its images."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from builder.release.checks.index import Indices, index_problems
from builder.release.checks.rejections import rejection_problems
from release.files.storage import ReleasePath, StorageError
from release.images.decoding import open_image
from release.layout.findings import Problem, damage
from release.layout.manifest import ShardRecord
from release.layout.shard_commit import marker_name, read_marker_content
from release.layout.shard_files import (
    FORMAT_NAMES,
    MOMENTS,
    flat_path,
    iterate_shard,
    read_shard,
    shard_format,
    shard_schema,
)

READ_ROWS = 64
# What Pillow raises for bytes that are no image; SyntaxError is its word for a broken PNG chunk.
NO_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

Columns = dict[str, list[Any]]
RowCheck = Callable[[Columns], list[str]]


@dataclass(frozen=True)
class ImageRow:
    """One image of a shard, decoded; `columns` are its other columns."""

    image: Image.Image
    content: bytes
    columns: dict[str, Any]


ImageCheck = Callable[[ImageRow], str | None]
MomentsCheck = Callable[[str, bytes | None], str | None]  # of an image's id and its moments


@dataclass(frozen=True)
class ShardCheck:
    """How one shard ought to be. rows: a check of all columns but the image; image: of each, or in
    a set of latents moments: of those of each."""

    record: ShardRecord
    schema: pa.Schema
    rows: RowCheck
    image: ImageCheck | None
    moments: MomentsCheck | None = None


def check_shard(release: ReleasePath, check: ShardCheck, indices: Indices) -> list[Problem]:
    """Every problem of the shard; what is inside is looked at only if its bytes are the wanted.

    indices: of its release, which are compared with what the shard holds.
    """
    record = check.record
    problems = [*marker_problems(release, record), *rejection_problems(release, record)]
    harm = damage(release / record.path, record.bytes, record.sha256)
    if harm is not None:
        return [*problems, Problem(record.path, harm)]
    try:
        path = release / record.path
        problems += [Problem(record.path, text) for text in _content_problems(path, check)]
        problems += index_problems(release, record, indices)
    except (pa.ArrowException, OSError, StorageError) as error:
        text = f"cannot be read as {_format(record)}: {' '.join(str(error).split())}"
        problems.append(Problem(record.path, text))
    return problems


def marker_problems(release: ReleasePath, record: ShardRecord) -> list[Problem]:
    """Whether the shard's marker is there and says what the manifest says."""
    return judged_marker(record, read_marker_content(release, record.path))


def judged_marker(record: ShardRecord, marker: bytes | None) -> list[Problem]:
    """As marker_problems, of a marker's content; None if there is none."""
    name = marker_name(record.path)
    if marker is None:
        return [Problem(name, "is missing")]
    try:
        content = json.loads(marker)
        found, versions = content["shard"], content["versions"]
    except (ValueError, KeyError, TypeError):
        return [Problem(name, "cannot be read")]
    wanted = asdict(record) | {"path": flat_path(record.path)}
    wrong = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
    if wrong or not isinstance(versions, dict):
        return [Problem(name, f"differs from the manifest in {', '.join(wrong) or 'versions'}")]
    return []


def _format(record: ShardRecord) -> str:
    return FORMAT_NAMES[shard_format(record.path)]


def _content_problems(path: ReleasePath, check: ShardCheck) -> Iterator[str]:
    schema = shard_schema(path)
    if not schema.equals(check.schema, check_metadata=True):
        yield _schema_problem(schema, check.schema)
        return
    others = [name for name in check.schema.names if name not in ("image", MOMENTS)]
    columns: Columns = read_shard(path, others).to_pydict()
    rows = len(columns["class_id"])
    if rows != check.record.rows:
        yield f"has {rows} rows, the manifest says {check.record.rows}"
    if Counter(columns["class_id"]) != check.record.per_class:
        yield "its images of each class are not as many as the manifest says"
    yield from check.rows(columns)
    if check.image is not None:
        yield from _image_problems(path, columns, check.image)
    if check.moments is not None:
        yield from _moments_problems(path, columns["image_id"], check.moments)


def _schema_problem(found: pa.Schema, wanted: pa.Schema) -> str:
    for name in dict.fromkeys([*wanted.names, *found.names]):
        theirs = found.field(name).type if name in found.names else "none"
        ours = wanted.field(name).type if name in wanted.names else "none"
        if theirs != ours:
            return f"column {name} is {theirs}, not {ours}"
    if found.names != wanted.names:
        return f"columns are {', '.join(found.names)}, not {', '.join(wanted.names)}"
    return "features or class list in the schema are not those of the manifest"


def _image_problems(path: ReleasePath, columns: Columns, check: ImageCheck) -> Iterator[str]:
    """One line for each way in which images fail; a few of them are in memory at a time."""
    failed: dict[str, list[str]] = {}
    row = 0
    for batch in iterate_shard(path, ["image"], READ_ROWS):
        for content in batch["image"].field("bytes"):
            own = {name: values[row] for name, values in columns.items()}
            text = _image_problem(content.as_py(), own, check)
            if text is not None:
                failed.setdefault(text, []).append(own["image_id"])
            row += 1
    yield from _failures("image", failed, row)


def _moments_problems(
    path: ReleasePath, names: Sequence[str], check: MomentsCheck
) -> Iterator[str]:
    """As _image_problems."""
    failed: dict[str, list[str]] = {}
    rows = iter(names)
    for batch in iterate_shard(path, [MOMENTS], READ_ROWS):
        for content, name in zip(batch[MOMENTS], rows, strict=False):
            text = check(name, content.as_py())
            if text is not None:
                failed.setdefault(text, []).append(name)
    yield from _failures("latent of image", failed, len(names))


def _failures(what: str, failed: dict[str, list[str]], rows: int) -> Iterator[str]:
    for text, names in failed.items():
        yield f"{what} {text}: {len(names)} of {rows}, the first {names[0]}"


def _image_problem(content: bytes | None, columns: dict[str, Any], check: ImageCheck) -> str | None:
    try:
        with open_image(content or b"") as image:
            image.load()
            return check(ImageRow(image, content or b"", columns))
    except NO_IMAGE:
        return "cannot be decoded"


def read_columns(path: ReleasePath, names: Sequence[str]) -> Columns | None:
    """Some columns of a shard, None if it cannot be read: that is a problem of its own."""
    try:
        return read_shard(path, names).to_pydict()  # type: ignore[no-any-return]
    except (pa.ArrowException, OSError, StorageError):
        return None
