"""How a release of more shards than the Hub takes side by side (hub_limits.py) is laid out there:
shards in sub-folders by the hash of their names, markers in one file.

What is there is a release of its own right: its manifest names the files where they stand, and has
the identity (content_sha256) of the release it was published from.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from builder.planning.hub_limits import fits_flat, folded_problem
from builder.release.hub import LocalFile, local_file
from builder.state import STATE_FILE
from release.errors import UserError
from release.files.commit import sha256_bytes, sha256_file
from release.files.storage import ReleasePath, read_bytes, read_files
from release.layout.image_index import index_name, is_index, open_index, write_index
from release.layout.manifest import MANIFEST_FILE, Manifest, ShardRecord
from release.layout.readme import README_FILE
from release.layout.shard_commit import PACKED_MARKERS, marker_name
from release.layout.shard_files import folded_path, folded_pattern, shard_format, shard_name

READ_TOGETHER = 1000  # markers
CROISSANT_FILE = "croissant.json"


def needs_folding(manifest: Manifest) -> bool:
    """Whether a folder would hold more files than the Hub takes, or all of them."""
    folders = Counter(record.path.rpartition("/")[0] for record in manifest.shards)
    return not fits_flat(max(folders.values()), _flat_files(manifest))


def _flat_files(manifest: Manifest) -> int:
    rejected = sum(bool(record.rejections_sha256) for record in manifest.shards)
    return 2 * len(manifest.shards) + rejected + len(manifest.documents) + 2


def refuse_too_many(manifest: Manifest) -> None:
    """UserError for more files than the Hub takes, in whichever folders."""
    if not needs_folding(manifest):
        return
    others = _flat_files(manifest) - 2 * len(manifest.shards)
    arrow = any(shard_format(record.path) == "arrow" for record in manifest.shards)
    problem = folded_problem(len(manifest.shards), others, arrow=arrow)
    if problem is not None:
        raise UserError(f"{manifest.name} {problem}")


def changed_meanwhile(release: ReleasePath) -> UserError:
    """What was read first and what is read now are of two states."""
    return UserError(f"{release} was changed by another command meanwhile: publish again")


def folded_files(
    release: ReleasePath, manifest: Manifest, folder: Path
) -> tuple[list[LocalFile], list[LocalFile]]:
    """As published_files; what is not in the release is written into `folder`."""
    records = tuple(replace(r, path=folded_path(r.path)) for r in manifest.shards)
    data = []
    for record, new in zip(manifest.shards, records, strict=True):
        data.append(LocalFile(new.path, release / record.path, record.bytes, record.sha256))
        data += rejections_of(release, record, new)
    names = [
        *(_fold_document(release, manifest, name, folder) for name in manifest.documents),
        _pack_markers(release, manifest, folder),
    ]
    documents = {name: sha256_file(place / name) for place, name in names}
    replace(manifest, shards=records, documents=documents).write(folder)
    last = [
        LocalFile(name, place / name, (place / name).stat().st_size, documents[name])
        for place, name in sorted(names, key=lambda found: found[1])
    ]
    state = local_file(release, STATE_FILE)
    return data, [state, *last, local_file(folder, MANIFEST_FILE)]


def rejections_of(release: ReleasePath, record: ShardRecord, new: ShardRecord) -> list[LocalFile]:
    """The file of what the shard did not keep, if there is one; new: the record as published."""
    if not record.rejections_sha256:
        return []
    size, sha256 = record.rejections_bytes, record.rejections_sha256
    return [LocalFile(new.rejections_path, release / record.rejections_path, size, sha256)]


def read_markers(
    release: ReleasePath, manifest: Manifest
) -> Iterator[tuple[ShardRecord, bytes | None]]:
    """Each shard with its marker's content, None where there is none; many are read at once."""
    for start in range(0, len(manifest.shards), READ_TOGETHER):
        some = manifest.shards[start : start + READ_TOGETHER]
        found = read_files(release, [marker_name(record.path) for record in some])
        yield from ((record, found.get(marker_name(record.path))) for record in some)


def _pack_markers(release: ReleasePath, manifest: Manifest, folder: Path) -> tuple[Path, str]:
    with (folder / PACKED_MARKERS).open("wb") as file:
        for _, marker in read_markers(release, manifest):
            file.write((marker or b"").replace(b"\n", b" ") + b"\n")
    return folder, PACKED_MARKERS


def _fold_document(
    release: ReleasePath, manifest: Manifest, name: str, folder: Path
) -> tuple[Path, str]:
    """Where the document stands as it is published, and its name there."""
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if is_index(name):
        return folder, _fold_index(release, manifest, name, folder)
    content = read_bytes(release / name)
    if sha256_bytes(content) != manifest.documents[name]:
        raise changed_meanwhile(release)
    if name == README_FILE:
        content = _fold_readme(manifest, content)
    if name == CROISSANT_FILE:
        content = _fold_croissant(manifest, content)
    place.write_bytes(content)
    return folder, name


def _fold_readme(manifest: Manifest, content: bytes) -> bytes:
    """With its patterns, and the files that it names while a release is extended."""
    new = _new_names(manifest)

    def folded(found: re.Match[bytes]) -> bytes:
        name = found.group().decode()
        return new.get(name, name).encode()

    return re.sub(rb"[A-Za-z0-9_-]+/[A-Za-z0-9_*-]+\.parquet", folded, content)


def _new_names(manifest: Manifest) -> dict[str, str]:
    """Where each shard stands, and what all of a split are found by, by what it was before."""
    new = {record.path: folded_path(record.path) for record in manifest.shards}
    return new | {pattern: folded_pattern(pattern) for pattern in _patterns(manifest)}


def _patterns(manifest: Manifest) -> list[str]:
    """By which the documents name the shards of each split."""
    return [
        shard_name(config, split, "*", "parquet")
        for config, splits in manifest.splits().items()
        for split in splits
    ]


def _fold_croissant(manifest: Manifest, content: bytes) -> bytes:
    """With the files and the patterns of its file sets where they stand there, also in the
    expressions that take the split from a file's path, which begin with CONFIG/(; mlcroissant
    makes patterns of them, of `.` alone."""
    new = _new_names(manifest)

    def folded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: folded(item) for key, item in value.items()}
        if isinstance(value, list):
            return [folded(item) for item in value]
        if isinstance(value, str) and "/(" in value and value.split("/(")[0] in configs:
            return value.replace("/(", "/part-.+/(", 1)
        return new.get(value, value) if isinstance(value, str) else value

    configs = manifest.splits().keys()
    return (json.dumps(folded(json.loads(content)), indent=1, ensure_ascii=False) + "\n").encode()


def _fold_index(release: ReleasePath, manifest: Manifest, name: str, folder: Path) -> str:
    _, config, file = name.split("/")
    split = file.rpartition("-")[0]
    table = open_index(release / name)
    column = table["file"].combine_chunks()
    paths = [folded_path(path) for path in column.dictionary.to_pylist()]
    files = pa.DictionaryArray.from_arrays(column.indices, pa.array(paths, pa.string()))
    table = table.set_column(table.column_names.index("file"), "file", files)
    shards = [r for r in manifest.shards if (r.config, r.split) == (config, split)]
    new = index_name(config, split, [(folded_path(r.path), r.sha256) for r in shards])
    with pa.OSFile(str(folder / new), "wb") as sink:
        write_index(sink, table)
    return new
