"""Images that stay encoded in the files of their release, and are read one at a time.

A release stores images as they are, in Parquet and Arrow alike, so the bytes of each stand in the
file: they are found once, and read by their place from then on, in any order. Of a release behind a
URL those of a batch are asked for together, and kept on this machine as far as there is room.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from classifiers.image_cache import DEFAULT_CACHE, ImageCache
from classifiers.remote_images import ImageFile, RemoteFile, read_places, remote_index
from generation.commit import sha256_text
from generation.decoding import decode_rgb
from generation.errors import UserError
from generation.image_sets import PSEUDO_SPLITS, class_labels, listed_files
from generation.shard_files import (
    read_shard,
    readable,
    require_unchanged,
    shard_format,
    shard_schema,
)
from generation.storage import ReleasePath

BYTES = "image.bytes"
HEADER = 1 << 16  # more than what Parquet writes between two images: a page's header and levels


@dataclass(frozen=True)
class EncodedImages:
    """Where each image's bytes are; in memory there is no more than its label and id.

    files: of the release; file, offset, size int64[N]: the image's bytes. labels int64[N].
    """

    files: tuple[ImageFile, ...]
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    labels: np.ndarray
    image_ids: tuple[str, ...]
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> Iterator[bytes]:
        """The bytes of each image in turn, as the release holds them."""
        places = (
            (self.files[self.file[row]], int(self.offset[row]), int(self.size[row])) for row in rows
        )
        return read_places(places)

    def image(self, row: int) -> Image.Image:
        """As `images`, of one."""
        return next(self.images([row]))

    def images(self, rows: Sequence[int]) -> Iterator[Image.Image]:
        """Each decoded, RGB; UserError names the file and the image if one cannot be."""
        for row, content in zip(rows, self.read(rows), strict=True):
            yield self._decoded(row, content)

    def _decoded(self, row: int, content: bytes) -> Image.Image:
        try:
            return decode_rgb(content)
        except UserError as error:
            path = self.files[self.file[row]]
            raise UserError(f"{path}, image {self.image_ids[row]}: {error}") from None

    def take(self, rows: np.ndarray) -> "EncodedImages":
        """Those rows, in that order."""
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ("file", "offset", "size", "labels")},
            image_ids=tuple(self.image_ids[row] for row in rows),
        )


def join_encoded(parts: Sequence[EncodedImages]) -> EncodedImages:
    """All parts one after the other."""
    starts = np.cumsum([0, *(len(part.files) for part in parts)])
    return replace(
        parts[0],
        files=tuple(path for part in parts for path in part.files),
        file=np.concatenate([p.file + start for p, start in zip(parts, starts, strict=False)]),
        offset=np.concatenate([part.offset for part in parts]),
        size=np.concatenate([part.size for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        image_ids=tuple(image_id for part in parts for image_id in part.image_ids),
    )


def index_images(
    release: ReleasePath,
    config: str,
    split: str,
    advance: Callable[[int], None] = lambda _: None,
    cache: ImageCache = DEFAULT_CACHE,
) -> EncodedImages:
    """Find the images of one split, in the order of their ids; `advance` gets rows just read.

    cache: for a release behind a URL. Raises UserError for files whose images are compressed.
    """
    found: list[pa.Table] = []
    files: list[ImageFile] = []
    for number, (name, sha256) in enumerate(listed_files(release, config, split)):
        path = release / name
        if isinstance(release, Path):
            if sha256 is not None:
                require_unchanged(path, sha256)
            with readable(path):
                rows = _index_file(release / name)
            files.append(release / name)
        else:
            file = RemoteFile(release, name, sha256 or sha256_text(str(path)), cache)
            rows = remote_index(file, sha256, _index_file)
            files.append(file)
        found.append(_of_split(rows, number, split, path))
        advance(len(found[-1]))
    ids, names = class_labels(found[0].schema)
    table = pa.concat_tables(found).sort_by("image_id")
    columns = {name: table[name].to_numpy() for name in ("file", "offset", "size", "label")}
    return EncodedImages(
        files=tuple(files),
        file=columns["file"],
        offset=columns["offset"],
        size=columns["size"],
        labels=columns["label"].astype(np.int64),
        image_ids=tuple(table["image_id"].to_pylist()),
        class_ids=ids,
        class_names=names,
    )


def _index_file(path: Path) -> pa.Table:
    """Columns image_id, label, offset, size of all rows, and tuning where there is such a one."""
    there = shard_schema(path).names
    table = read_shard(path, [name for name in ("image_id", "label", "tuning") if name in there])
    find = _places_in_arrow if shard_format(path.name) == "arrow" else _places_in_parquet
    places = np.array(list(find(path)), np.int64).reshape(-1, 2)
    for name, values in {"offset": places[:, 0], "size": places[:, 1]}.items():
        table = table.append_column(name, pa.array(values))
    return table


def _of_split(table: pa.Table, number: int, split: str, path: ReleasePath) -> pa.Table:
    """Columns image_id, label, file, offset, size of the rows of `split`."""
    wanted = ["image_id", "label", *(["tuning"] if split in PSEUDO_SPLITS else [])]
    if missing := set(wanted) - set(table.column_names):
        raise UserError(f"{path} has no column {min(missing)!r}, so no split {split!r}")
    if split in PSEUDO_SPLITS:
        table = table.filter(pa.compute.equal(table["tuning"], PSEUDO_SPLITS[split]))
    table = table.append_column("file", pa.array(np.full(len(table), number)))
    return table.select(["image_id", "label", "file", "offset", "size"])


def _places_in_arrow(path: Path) -> Iterator[tuple[int, int]]:
    """Offset and length of each image in the file, in the order of its rows."""
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer().address
        source.seek(0)
        with pa.ipc.open_stream(source) as reader:
            for batch in reader:
                images = batch["image"].field("bytes")
                _, offsets, data = images.buffers()
                ends = np.frombuffer(offsets, np.int32)[: len(images) + 1].astype(np.int64)
                yield from zip(ends[:-1] + (data.address - start), np.diff(ends), strict=True)


def _places_in_parquet(path: Path) -> Iterator[tuple[int, int]]:
    """As of Arrow; Parquet does not say where, so the bytes are looked for."""
    with (
        pq.ParquetFile(path) as parquet,
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        for group in range(parquet.num_row_groups):
            facts = parquet.metadata.row_group(group)
            columns = (facts.column(i) for i in range(facts.num_columns))
            end = next(c.data_page_offset for c in columns if c.path_in_schema == BYTES)
            images = parquet.read_row_group(group, columns=[BYTES])["image"].combine_chunks()
            for data in images.field("bytes"):
                image = data.as_py()
                start = content.find(image, end, end + HEADER + len(image))
                if start < 0:
                    raise UserError(
                        f"{path}: its images are compressed by Parquet once more, so none can be "
                        "read alone; build the release again with build-dataset"
                    )
                end = start + len(image)
                yield start, len(image)
