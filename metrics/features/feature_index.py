"""Which file and row of a feature cache hold an image's features: one file for all of them.

CACHE/features/PROTOCOL/index.SHA256.feather, an Arrow IPC file of one batch, mapped into memory:

key     uint64, ascending: the first 64 bits of the encoded image's SHA-256
file    dictionary of names of the cache's files
row     int32
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from release.files.hash_named import find_checked, write_checked
from release.layout.image_index import file_column, open_index, write_index

NAME, SUFFIX = "index", ".feather"


@dataclass(frozen=True)
class Places:
    """key uint64[N], ascending; file int32[N], a number; row int32[N]."""

    key: np.ndarray
    file: np.ndarray
    row: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Places"]) -> "Places":
        """Of all parts, in order: runs that are sorted already, so this is a merge."""
        none = np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32)
        columns = [none, *((part.key, part.file, part.row) for part in parts)]
        key, file, row = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.argsort(key, kind="stable")
        return cls(key[order], file[order], row[order])

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """File and row of each of `keys`, -1 where there is none."""
        if not len(self.key):
            return np.full(len(keys), -1), np.full(len(keys), -1)
        order = np.argsort(keys)  # in their order what is looked at next is near
        found = np.empty(len(keys), np.int64)
        found[order] = np.searchsorted(self.key, keys[order]).clip(max=len(self.key) - 1)
        there = self.key[found] == keys
        return np.where(there, self.file[found], -1), np.where(there, self.row[found], -1)

    def without(self, files: Sequence[int]) -> "Places":
        """All but those in `files`."""
        kept = ~np.isin(self.file, files)
        return Places(self.key[kept], self.file[kept], self.row[kept])


def keys_of(hashes: Sequence[bytes]) -> np.ndarray:
    """The first 64 bits: among 10^7 images two agree with probability 3e-6."""
    return np.frombuffer(b"".join(h[:8] for h in hashes), dtype=">u8").astype(np.uint64)


def places_in(number: int, path: Path) -> Places:
    """Of one file; none of one that cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            hashes = file.read(["image_sha256"], use_threads=False)["image_sha256"]
        keys = keys_of(hashes.to_pylist())
    except (pa.ArrowException, OSError, KeyError):
        keys = keys_of([])
    rows = np.arange(len(keys), dtype=np.int32)
    return Places.joined([Places(keys, np.full(len(rows), number, np.int32), rows)])


def read_feature_index(folder: Path) -> tuple[Places, list[str]]:
    """The places, and the names that their numbers count; nothing if there is no index."""
    path = find_checked(folder, NAME, SUFFIX)
    if path is None:
        return Places.joined([]), []
    table = open_index(path)
    file = table["file"].combine_chunks()
    key, row = (table[name].combine_chunks().to_numpy() for name in ("key", "row"))
    return Places(key, file.indices.to_numpy(), row), file.dictionary.to_pylist()


def write_feature_index(folder: Path, places: Places, names: Sequence[str]) -> None:
    """In place of the one there is."""
    columns = {
        "key": pa.array(places.key),
        "file": file_column(places.file.astype(np.int32), names),
        "row": pa.array(places.row.astype(np.int32)),
    }
    sink = pa.BufferOutputStream()
    write_index(sink, pa.table(columns))
    path = write_checked(folder, NAME, SUFFIX, sink.getvalue().to_pybytes())
    for other in folder.glob(f"{NAME}.*{SUFFIX}"):
        if other != path:
            other.unlink(missing_ok=True)
