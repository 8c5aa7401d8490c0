"""Where each image stands in a shard's file, found without reading the images.

Shards store images as they are, in Parquet and Arrow alike. In Parquet they stand one behind the
other on data pages, each after its length, so that whoever reads the lengths finds them all
(https://parquet.apache.org/docs/file-format/).
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from release.errors import UserError
from release.files.commit import Content
from release.files.formats import ShardFormat
from release.layout.shard_files import MOMENTS

BYTES = ("image.bytes", MOMENTS)  # the column of a file that holds its images, or their latents
DATA_PAGE = 0
PLAIN = 0
LENGTH = struct.Struct("<I")  # before each image, and before a page's levels
COMPRESSED = (
    "its images are compressed by Parquet once more, so none can be read alone; build the release "
    "again with build-dataset"
)


def image_places(content: Content, file_format: ShardFormat) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and lengths in the file, both int64[N], of its images in the order of its rows.

    content: the file's. UserError if Parquet holds them otherwise than as they are.
    """
    if file_format == "arrow":
        parts = [*_arrow_places(content)]
        offsets = [part[0] for part in parts]
        return _joined(offsets), _joined([part[1] for part in parts])
    try:
        found = np.array([*_parquet_places(content)], np.int64).reshape(-1, 2)
    except (IndexError, struct.error, RecursionError):
        raise UserError("its data pages cannot be read") from None
    return found[:, 0], found[:, 1]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _arrow_places(content: Content) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each record batch."""
    whole = pa.py_buffer(content)
    with pa.ipc.open_stream(pa.BufferReader(whole)) as reader:
        for batch in reader:
            images = batch["image"].field("bytes")
            _, offsets, data = images.buffers()
            ends = np.frombuffer(offsets, np.int32)[: len(images) + 1].astype(np.int64)
            start = data.address - whole.address if data else 0
            yield ends[:-1] + start, np.diff(ends)


def _parquet_places(content: Content) -> Iterator[tuple[int, int]]:
    with pq.ParquetFile(pa.BufferReader(pa.py_buffer(content))) as parquet:
        for group in range(parquet.num_row_groups):
            facts = parquet.metadata.row_group(group)
            columns = [facts.column(i) for i in range(facts.num_columns)]
            number = next(i for i, c in enumerate(columns) if c.path_in_schema in BYTES)
            images, found = columns[number], 0
            if images.compression != "UNCOMPRESSED" or images.has_dictionary_page:
                raise UserError(COMPRESSED)
            nullable = parquet.schema.column(number).max_definition_level > 0
            for place in _chunk_places(content, images, nullable=nullable):
                found += 1
                yield place
            if found != facts.num_rows:
                raise UserError(f"{facts.num_rows - found} of its rows have no image")


def _chunk_places(content: Content, chunk: Any, *, nullable: bool) -> Iterator[tuple[int, int]]:
    """Of the images of one row group, page by page."""
    place = chunk.data_page_offset
    end = place + chunk.total_compressed_size
    while place < end:
        header = _Fields(content, place)
        page = header.read()
        place = header.place
        stop = place + page[3]
        if page[1] != DATA_PAGE or page[5][2] != PLAIN:
            raise UserError(COMPRESSED)
        if nullable:  # which rows have an image at all
            place += LENGTH.size + LENGTH.unpack_from(content, place)[0]
        while place < stop:
            (size,) = LENGTH.unpack_from(content, place)
            yield place + LENGTH.size, size
            place += LENGTH.size + size


class _Fields:
    """A struct in Thrift's compact protocol, as a page's header is: values by field number."""

    def __init__(self, content: Content, place: int) -> None:
        self._content, self.place = content, place

    def read(self) -> dict[int, Any]:
        """The struct at `place`, which is moved behind it."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            found[number] = self._value(head & 15)
        return found

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 8:
            size = self._natural()
            self.place += size
            return None
        if kind == 12:
            return self.read()
        raise IndexError(f"no such field in a page's header: {kind}")

    def _byte(self) -> int:
        self.place += 1
        return int(self._content[self.place - 1])

    def _natural(self) -> int:
        value = shift = 0
        while (part := self._byte()) & 128:
            value |= (part & 127) << shift
            shift += 7
        return value | part << shift

    def _integer(self) -> int:
        natural = self._natural()
        return natural >> 1 ^ -(natural & 1)
