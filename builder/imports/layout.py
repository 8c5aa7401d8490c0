"""Which images of a source stand in which file of its release, and under which ids.

Rows stand in the order of a hash, so that any run of them is mixed, and a file holds a fixed part
of the hashes: images that come or go change the files they are in, and no other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from builder.imports.id_hashes import hash_words
from builder.imports.tuning import tuning_rows
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.real_sources.source import RealSource, RealSplit

ROWS_PER_SHARD = 5000
MEAN_ROWS = 4500  # of files of which each holds its part of the hashes: none has many more
SMALL_FILES, SMALL_ROWS = 16, 2500  # up to so many files, so many rows each: all workers have some
SHARD_BYTES = 900_000_000
VIEW_BYTES_PER_PIXEL = 2  # of a photograph in lossless WebP, rounded up
SIZES_READ = 64  # images whose size is looked at to tell how large the files will be
MIXED = {"fashion-mnist"}  # sources that are mixed as they come, and keep their order
OWN_ORDER = "as in the source"
HASH_ORDER = "by the SHA-256 of 'row order ' + image_id"
SAFE = re.compile(r"[A-Za-z0-9_-]+")
STEM = 40  # characters of a file's name that are repeated in its image_id


@dataclass(frozen=True)
class Stretch:
    """The images of one file: `rows` of the split, in the order they are written.

    place: the number in the file's name. tuning: one a row. identity: JSON of what decides ids,
    labels and order, for the fingerprint; in a split that keeps its order all images count.
    """

    split: str
    place: int
    rows: tuple[int, ...]
    tuning: tuple[bool, ...]
    identity: str


def has_file_names(source: RealSource) -> bool:
    """Whether its images are files whose names cannot be ids: they get a column `file_name`."""
    splits = source.splits.values()
    return any(not SAFE.fullmatch(data.key(0)) for data in splits if len(data.labels))


def image_id(split: str, key: str) -> str:
    """SPLIT-KEY; of a key with other letters than A-Z a-z 0-9 _ - the stem, and a hash of it all.

    So ids serve as file names, in URLs, and as keys of WebDataset, which end at the first dot.
    """
    if SAFE.fullmatch(key):
        return f"{split}-{key}"
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePosixPath(key).stem)[:STEM]
    return f"{split}-{stem}-{sha256_text(key)[:12]}"


def row_order(source: RealSource) -> str:
    """The rule, as the manifest states it."""
    return OWN_ORDER if source.name in MIXED else HASH_ORDER


def count_files(source: RealSource, earlier: Mapping[str, int]) -> dict[str, int]:
    """How many files each split in hash order takes: as before, unless it has doubled since."""
    if row_order(source) == OWN_ORDER:
        return {}
    found = {}
    for split, data in source.splits.items():
        wanted = _files_for(data)
        before = earlier.get(split, 0)
        found[split] = before if wanted <= 2 * before else wanted
    return found


def _files_for(data: RealSplit) -> int:
    count = len(data.labels)
    by_rows = 1 if count <= ROWS_PER_SHARD else -(-count // MEAN_ROWS)
    by_rows = max(by_rows, min(SMALL_FILES, -(-count // SMALL_ROWS)))
    step = max(1, count // SIZES_READ)
    sizes = [size for i in range(0, count, step) if (size := _size(data, i)) is not None]
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    return max(by_rows, -int(-count * mean // SHARD_BYTES), 1)


def _size(data: RealSplit, i: int) -> int | None:
    try:
        return len(data.read(i))
    except (OSError, UserError):  # named when all images are read
        return None


def stretches(source: RealSource, files: Mapping[str, int]) -> Iterator[Stretch]:
    """Every file's images; files: as count_files gives it. Splits come in the source's order."""
    for split, data in source.splits.items():
        ids = [image_id(split, data.key(i)) for i in range(len(data.labels))]
        labels = list(data.labels)
        chosen = tuning_rows(ids, labels) if split == "train" else np.zeros(len(ids), dtype=bool)
        if split not in files:
            keys = [data.key(i) for i in range(len(labels))]
            yield from _in_own_order(split, keys, labels, chosen)
        else:
            yield from _in_hash_order(source, split, ids, chosen, files[split])


def _in_own_order(
    split: str, keys: Sequence[str], labels: Sequence[int], chosen: np.ndarray
) -> Iterator[Stretch]:
    identity = canonical_json([[key, label] for key, label in zip(keys, labels, strict=True)])
    tuning = chosen.tolist()
    for start, stop in pairwise([*range(0, len(keys), ROWS_PER_SHARD), len(keys)]):
        yield Stretch(split, start, tuple(range(start, stop)), tuple(tuning[start:stop]), identity)


def _in_hash_order(
    source: RealSource, split: str, ids: Sequence[str], chosen: np.ndarray, files: int
) -> Iterator[Stretch]:
    labels = source.splits[split].labels
    classes = [[entry.wnid, entry.name, entry.prompt] for entry in source.classes]
    common = sha256_text(canonical_json([classes, has_file_names(source)]))
    words = hash_words([f"row order {name}" for name in ids])
    order = np.lexsort(words[::-1])
    # which of `files` equal parts of all hashes: by the upper 32 bits
    parts = ((words[0][order] >> np.uint64(32)) * np.uint64(files)) >> np.uint64(32)
    ends = np.searchsorted(parts, np.arange(files + 1))
    for place, (start, stop) in enumerate(pairwise(ends.tolist())):
        rows = order[start:stop].tolist()
        if rows:
            tuning = chosen[rows].tolist()
            content = [[ids[i], labels[i], t] for i, t in zip(rows, tuning, strict=True)]
            identity = canonical_json(sha256_text(canonical_json([common, content])))
            yield Stretch(split, place, tuple(rows), tuple(tuning), identity)


def view_parts(rows: int, resolution: int) -> list[tuple[int, int]]:
    """The slots of each file of views that an original file of `rows` images becomes."""
    most = max(1, SHARD_BYTES // (VIEW_BYTES_PER_PIXEL * resolution**2))
    return list(pairwise([*range(0, rows, most), rows]))


def original_of(path: str) -> str:
    """SPLIT-PLACE of the original file that the file at `path` has its images from, or is."""
    name = path.split("/")[1].rsplit("-", 1)[0]
    return re.sub(r"(-\d+)p\d+$", r"\1", name)
