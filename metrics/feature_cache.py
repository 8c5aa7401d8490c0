"""Features on disk, keyed by the hash of the encoded image, so that each image is read once.

CACHE/images/SHARD.SHA256.parquet              the images of a release's file (see image_lists)
CACHE/features/PROTOCOL/BATCH.SHA256.parquet   image_sha256, pixels_sha256, and the features

A file that was cut or changed is deleted once its images are asked for: they are missing then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from generation.commit import sha256_bytes
from metrics.checked_files import is_whole, write_checked
from metrics.extractors import FeatureProtocol, Features, concatenate

_MATRICES = tuple(field.name for field in fields(Features))
_PLACE = np.dtype([("key", np.uint64), ("file", np.int32), ("row", np.int32)])


class FeatureCache:
    """The features of one protocol under one cache folder."""

    def __init__(self, folder: Path, protocol: FeatureProtocol):
        self.root = folder
        self.folder = folder / "features" / protocol.sha256[:16]
        self._files = sorted(self.folder.glob("*.parquet"))

    @cached_property
    def _index(self) -> np.ndarray:
        """_PLACE[N], sorted by key: in which file and row each image's features stand."""
        return _by_key([_places(i, path) for i, path in enumerate(self._files)])

    def missing(self, hashes: Sequence[bytes]) -> np.ndarray:
        """bool[N]: True where the image of that hash has no features yet."""
        return np.asarray(self._find(hashes) < 0)

    def _find(self, hashes: Sequence[bytes]) -> np.ndarray:
        """int64[N]: places in the index, -1 where there is none; files that are not whole go."""
        keys = _keys(hashes)
        while True:
            if not len(self._index):
                return np.full(len(keys), -1)
            found = np.searchsorted(self._index["key"], keys).clip(max=len(self._index) - 1)
            found = np.where(self._index["key"][found] == keys, found, -1)
            files = np.unique(self._index["file"][found[found >= 0]])
            broken = [number for number in files if not is_whole(self._files[number])]
            if not broken:
                return found
            for number in broken:
                self._files[number].unlink(missing_ok=True)
            self._index = self._index[~np.isin(self._index["file"], broken)]

    def read(self, hashes: Sequence[bytes]) -> Features:
        """Features of images that are all there, in the order asked for."""
        parts, back = [], []
        for path, rows, wanted in self._places_of(hashes):
            parts.append(_read_rows(path, rows))
            back.append(wanted)
        together, order = concatenate(parts), np.argsort(np.concatenate(back))
        return Features(*(getattr(together, name)[order] for name in _MATRICES))

    def pixels(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Hashes of the decoded images that are all there, in the order asked for."""
        found = np.empty(len(hashes), object)
        for path, rows, wanted in self._places_of(hashes):
            column = pq.read_table(path, columns=["pixels_sha256"])["pixels_sha256"]
            found[wanted] = column.take(pa.array(rows)).to_pylist()
        return list(found)

    def _places_of(self, hashes: Sequence[bytes]) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Each file with its rows that are wanted, and where among `hashes` they are."""
        found = self._find(hashes)
        if (found < 0).any():
            raise KeyError(f"{self.folder} lacks features of {(found < 0).sum()} images")
        places = self._index[found]
        for number in np.unique(places["file"]):
            wanted = np.flatnonzero(places["file"] == number)
            yield self._files[number], places["row"][wanted], wanted

    def write(self, hashes: Sequence[bytes], pixels: Sequence[bytes], features: Features) -> None:
        """Add the features of new images, with the hashes of their pixels, as one file."""
        columns = {
            "image_sha256": pa.array(hashes, pa.binary(32)),
            "pixels_sha256": pa.array(pixels, pa.binary(32)),
        }
        for name in _MATRICES:
            if getattr(features, name).shape[1]:
                columns[name] = _column(getattr(features, name))
        table = pa.table(columns)
        sink = pa.BufferOutputStream()
        # random mantissas do not compress, and reading is where the time goes
        pq.write_table(table, sink, compression="none", use_dictionary=False)
        name = sha256_bytes(b"".join(hashes))[:16]
        path = write_checked(self.folder, name, ".parquet", sink.getvalue().to_pybytes())
        index = [self._index, _places(len(self._files), path)]
        self._files.append(path)
        self._index = _by_key(index)


def _places(number: int, path: Path) -> np.ndarray:
    """_PLACE[N] of one file; none of one that cannot be read."""
    try:
        hashes = pq.read_table(path, columns=["image_sha256"])["image_sha256"].to_pylist()
    except (pa.ArrowException, OSError, KeyError):
        return np.zeros(0, _PLACE)
    places = np.zeros(len(hashes), _PLACE)
    places["key"], places["file"], places["row"] = _keys(hashes), number, range(len(hashes))
    return places


def _by_key(places: Sequence[np.ndarray]) -> np.ndarray:
    index = np.concatenate([np.zeros(0, _PLACE), *places])
    return index[np.argsort(index["key"], kind="stable")]


def _keys(hashes: Sequence[bytes]) -> np.ndarray:
    """The first 64 bits: among 10^7 images two agree with probability 3e-6."""
    return np.frombuffer(b"".join(h[:8] for h in hashes), dtype=">u8").astype(np.uint64)


def _column(matrix: np.ndarray) -> pa.FixedSizeListArray:
    values = pa.array(np.ascontiguousarray(matrix).ravel())
    kind = pa.list_(pa.float32(), matrix.shape[1])
    return pa.FixedSizeListArray.from_buffers(kind, len(matrix), [None], children=[values])


def _read_rows(path: Path, rows: np.ndarray) -> Features:
    """A matrix that the network does not have is no column, and comes back with width 0."""
    file = pq.ParquetFile(path)
    table = file.read([name for name in _MATRICES if name in file.schema_arrow.names])
    none = np.zeros((len(rows), 0), np.float32)
    return Features(
        *(_matrix(table[name])[rows] if name in table.column_names else none for name in _MATRICES)
    )


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """float32[N,D] of a fixed-size-list column."""
    chunk = column.combine_chunks()
    width = column.type.list_size
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width))
