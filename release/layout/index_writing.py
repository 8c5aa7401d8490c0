"""The index of a release's images, put together of what its workers noted of their shards."""

import json
from collections.abc import Sequence
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pyarrow as pa

from release.errors import UserError
from release.files.commit import (
    canonical_json,
    delete_file,
    write_atomically,
    write_stream_atomically,
)
from release.files.storage import ReleasePath, list_files, read_bytes, read_files
from release.layout.image_index import (
    FOLDER,
    as_text,
    from_text,
    index_name,
    joined_index,
    shard_index,
    write_index,
)
from release.layout.manifest import Manifest, ShardRecord
from release.layout.shard_commit import sidecar_name
from release.layout.shard_files import require_unchanged, shard_format

READ_TOGETHER = 1000  # sidecars


def split_index_name(manifest: Manifest, config: str, split: str) -> str:
    """Where the index of the split stands, if there is one."""
    records = _records(manifest, config, split)
    return index_name(config, split, [(record.path, record.sha256) for record in records])


def write_indices(release: ReleasePath, manifest: Manifest) -> dict[str, str]:
    """Write the index of each split; SHA-256 by name.

    A split of which a shard has no sidecar that tells its images, as before there was an index,
    gets none: readers then look for the images.
    """
    written = {}
    for config, splits in manifest.splits().items():
        for split in splits:
            records = _records(manifest, config, split)
            parts = _noted_rows(release, records)
            if parts is None:
                continue
            table = joined_index(parts, [record.path for record in records])
            name = split_index_name(manifest, config, split)
            _, written[name] = write_stream_atomically(
                release / name, partial(write_index, table=table)
            )
    return written


def remove_unnoted_indices(release: ReleasePath, manifest: Manifest) -> None:
    """Delete those that a killed build left, and those of shards that were replaced."""
    for name in list_files(release / FOLDER):
        if f"{FOLDER}/{name}" not in manifest.documents:
            delete_file(release / FOLDER / name)


def _records(manifest: Manifest, config: str, split: str) -> list[ShardRecord]:
    """In the order of their names, which is that of readers."""
    found = [s for s in manifest.shards if (s.config, s.split) == (config, split)]
    return sorted(found, key=lambda record: record.path)


def _noted_rows(release: ReleasePath, records: Sequence[ShardRecord]) -> list[pa.Table] | None:
    """Of each shard the rows of its sidecar; None if one does not tell them.

    Where some do, an earlier version's release has grown: of the others the rows are noted now.
    """
    parts: list[pa.Table | None] = []
    for start in range(0, len(records), READ_TOGETHER):
        some = records[start : start + READ_TOGETHER]
        contents = read_files(release, [sidecar_name(record.path) for record in some])
        parts += [_rows_of(contents.get(sidecar_name(r.path), b""), r) for r in some]
    noted = [part for part in parts if part is not None]
    if len(noted) == len(parts):
        return noted
    if not noted or not isinstance(release, Path):  # behind a URL all files would be fetched
        return None
    try:
        return [
            note_images(release, record) if part is None else part
            for record, part in zip(records, parts, strict=True)
        ]
    except UserError:  # a shard that is damaged, or whose images cannot be read alone
        return None


def note_images(release: Path, record: ShardRecord) -> pa.Table:
    """Look where the images of a shard stand, and note it in its sidecar as its writer does.

    UserError if the shard is not what `record` says.
    """
    require_unchanged(release / record.path, record.sha256)
    rows = whole_shard_index(release, record)
    name = sidecar_name(record.path)
    try:
        sidecar = dict(json.loads(read_files(release, [name])[name]))
    except (KeyError, ValueError, TypeError, RecursionError):  # there is none that is whole
        sidecar = {}
    sidecar["images"] = {"of": record.sha256, "rows": as_text(rows)}
    write_atomically(release / name, canonical_json(sidecar).encode())
    return rows


def whole_shard_index(release: ReleasePath, record: ShardRecord) -> pa.Table:
    """As shard_index, of the shard as it stands there; one behind a URL is fetched for it."""
    path = release / record.path
    if not isinstance(path, Path):
        return shard_index(read_bytes(path), shard_format(record.path))
    with path.open("rb") as file:
        return shard_index(mmap(file.fileno(), 0, access=ACCESS_READ), shard_format(record.path))


def _rows_of(sidecar: bytes, record: ShardRecord) -> pa.Table | None:
    try:
        images = json.loads(sidecar)["images"]
        rows = from_text(images["rows"])
        return rows if (images["of"], len(rows)) == (record.sha256, record.rows) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # an earlier version's, or not whole
