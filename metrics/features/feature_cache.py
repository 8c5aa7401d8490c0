"""Features on disk, keyed by the hash of the encoded image, so that each image is read once.

CACHE/images/XX/SHARD.SHA256.parquet           the images of a release's file (see image_lists)
CACHE/features/PROTOCOL/BATCH.SHA256.parquet   image_sha256, pixels_sha256, and the features
CACHE/features/PROTOCOL/index.SHA256.feather   which file and row (see feature_index)

A file that was cut or changed is deleted once its images are asked for: they are missing then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metrics.features.extractors import FeatureProtocol, Features, concatenate
from metrics.features.feature_index import (
    Places,
    keys_of,
    places_in,
    read_feature_index,
    write_feature_index,
)
from release.files.commit import sha256_bytes
from release.files.hash_named import is_whole, write_checked

_MATRICES = tuple(field.name for field in fields(Features))
MOST_UNINDEXED = 256  # files; more are added to the index
NONE = Places.joined([])


class FeatureCache:
    """The features of one protocol under one cache folder."""

    def __init__(self, folder: Path, protocol: FeatureProtocol):
        self.root = folder
        self.folder = folder / "features" / protocol.sha256[:16]

    @cached_property
    def _files(self) -> list[Path]:
        """Those of the index first: its numbers count them."""
        self._indexed, names = read_feature_index(self.folder)
        found = {path.name: path for path in sorted(self.folder.glob("*.parquet"))}
        gone = [number for number, name in enumerate(names) if name not in found]
        if gone:
            self._indexed = self._indexed.without(gone)
        files = [self.folder / name for name in names]
        indexed = set(names)
        new = [path for name, path in found.items() if name not in indexed]
        self._new = Places.joined(
            [places_in(number, path) for number, path in enumerate(new, len(files))]
        )
        files += new
        if len(new) > MOST_UNINDEXED:
            self._indexed, self._new = Places.joined([self._indexed, self._new]), NONE
            write_feature_index(self.folder, self._indexed, [path.name for path in files])
        return files

    def missing(self, hashes: Sequence[bytes]) -> np.ndarray:
        """bool[N]: True where the image of that hash has no features yet."""
        return np.asarray(self._find(hashes)[0] < 0)

    def _find(self, hashes: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """int64[N] each: number of the file and row, -1 where there is none; files that are not
        whole go."""
        keys, files = keys_of(hashes), self._files
        while True:
            file, row = self._indexed.find(keys)
            new_file, new_row = self._new.find(keys)
            file, row = np.where(file < 0, new_file, file), np.where(row < 0, new_row, row)
            broken = [n for n in np.unique(file[file >= 0]).tolist() if not is_whole(files[n])]
            if not broken:
                return file, row
            for number in broken:
                files[number].unlink(missing_ok=True)
            self._indexed, self._new = self._indexed.without(broken), self._new.without(broken)

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
        file, row = self._find(hashes)
        if (file < 0).any():
            raise KeyError(f"{self.folder} lacks features of {(file < 0).sum()} images")
        for number in np.unique(file):
            wanted = np.flatnonzero(file == number)
            yield self._files[number], row[wanted], wanted

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
        number = len(self._files)
        self._files.append(path)
        self._new = Places.joined([self._new, places_in(number, path)])


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
