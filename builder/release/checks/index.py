"""Whether the index of a release's images says of each shard what that holds."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from release.errors import UserError
from release.files.storage import ReleasePath
from release.layout.findings import Problem
from release.layout.image_index import RowsByFile, open_index
from release.layout.index_writing import split_index_name, whole_shard_index
from release.layout.manifest import Manifest, ShardRecord


@dataclass(frozen=True)
class NotedIndex:
    """The index of one split, where it stands, and what it says of each of its shards."""

    name: str
    rows: RowsByFile


Indices = Mapping[tuple[str, str], NotedIndex]


def open_indices(release: ReleasePath, manifest: Manifest, damaged: Collection[str]) -> Indices:
    """By configuration and split, but for those at the paths `damaged`.

    A split of an earlier version has none, which is no problem: its readers look for the images.
    """
    found = {}
    for config, splits in manifest.splits().items():
        for split in splits:
            name = split_index_name(manifest, config, split)
            if name in manifest.documents and name not in damaged:
                table = open_index(release / name)
                columns = [column for column in table.column_names if column != "file"]
                found[config, split] = NotedIndex(name, RowsByFile.of(table, columns))
    return found


def index_problems(
    release: ReleasePath, record: ShardRecord, indices: Indices
) -> Iterator[Problem]:
    """Of a shard whose bytes are the manifest's; the same words for each shard of an index."""
    index = indices.get((record.config, record.split))
    if index is None:
        return
    try:
        held = whole_shard_index(release, record)
    except UserError as error:
        yield Problem(index.name, f"cannot be compared with {record.path}: {error}")
        return
    if not held.equals(index.rows.rows(record.path)):
        yield Problem(index.name, "says of its shards' images what these do not hold")
