"""The file that says what a shard did not keep: its bytes, and its rows against the record."""

from collections import Counter

import pyarrow as pa

from builder.shards.rejections import SCHEMA
from release.files.storage import ReleasePath
from release.layout.findings import Problem, damage
from release.layout.manifest import ShardRecord
from release.layout.shard_files import read_shard


def rejection_problems(release: ReleasePath, record: ShardRecord) -> list[Problem]:
    """Every problem of the file of rejected attempts; none where the record names no such file."""
    if not record.rejections_sha256:
        return []
    name = record.rejections_path
    harm = damage(release / name, record.rejections_bytes, record.rejections_sha256)
    if harm is not None:
        return [Problem(name, harm)]
    try:
        table = read_shard(release / name)
    except (pa.ArrowException, OSError) as error:
        return [Problem(name, f"cannot be read as Parquet: {' '.join(str(error).split())}")]
    if not table.schema.equals(SCHEMA):
        return [Problem(name, "its columns are not those of rejected attempts")]
    found = []
    for column, wanted in (("made", record.rejected), ("quarantined", record.quarantined)):
        rows = table.filter(table[column])
        if Counter(rows["class_id"].to_pylist()) != wanted:
            found.append(Problem(name, f"its rows that are {column} are not as many as stated"))
    return found
