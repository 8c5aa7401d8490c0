"""Images that stay encoded in the files of their release, and are read one at a time.

A release stores images as they are, in Parquet and Arrow alike, so the bytes of each stand in the
file: they are found once, and read by their place from then on, in any order.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from generation.errors import UserError
from generation.image_sets import (
    PSEUDO_SPLITS,
    class_labels,
    decode_rgb,
    split_files,
    unchanged_files,
)
from generation.shard_files import read_shard, readable, shard_format, shard_schema
from generation.storage import ReleasePath

BYTES = "image.bytes"
HEADER = 1 << 16  # more than what Parquet writes between two images: a page's header and levels


@dataclass(frozen=True)
class EncodedImages:
    """Where each image's bytes are; in memory there is no more than its label and id.

    files: of the release; file, offset, size int64[N]: the image's bytes. labels int64[N].
    """

    files: tuple[Path, ...]
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    labels: np.ndarray
    image_ids: tuple[str, ...]
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, row: int) -> bytes:
        """The image's bytes, as the release holds them."""
        with self.files[self.file[row]].open("rb", buffering=0) as file:
            file.seek(int(self.offset[row]))
            content: bytes = file.read(int(self.size[row]))
            return content

    def image(self, row: int) -> Image.Image:
        """Decoded, RGB; UserError names the file and the image if it cannot be."""
        try:
            return decode_rgb(self.read(row))
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
    release: ReleasePath, config: str, split: str, advance: Callable[[int], None] = lambda _: None
) -> EncodedImages:
    """Find the images of one split, in the order of their ids; `advance` gets rows just read.

    Raises UserError for a release behind a URL, and for files whose images are compressed.
    """
    paths = split_files(release, config, split)
    local = tuple(path for path in paths if isinstance(path, Path))
    if len(local) < len(paths):
        raise UserError(
            f"{release}: images are read one at a time for this recipe, or where they have no room "
            "in memory, which takes a folder on this machine; copy the release first"
        )
    found = []
    for number, path in enumerate(unchanged_files(release, config, split)):
        with readable(path):
            found.append(_index_file(local[number], number, split))
        advance(len(found[-1]))
    ids, names = class_labels(shard_schema(paths[0]))
    table = pa.concat_tables(found).sort_by("image_id")
    columns = {name: table[name].to_numpy() for name in ("file", "offset", "size", "label")}
    return EncodedImages(
        files=local,
        file=columns["file"],
        offset=columns["offset"],
        size=columns["size"],
        labels=columns["label"].astype(np.int64),
        image_ids=tuple(table["image_id"].to_pylist()),
        class_ids=ids,
        class_names=names,
    )


def _index_file(path: Path, number: int, split: str) -> pa.Table:
    """Columns image_id, label, file, offset, size of the rows of `split`."""
    wanted = ["image_id", "label", *(["tuning"] if split in PSEUDO_SPLITS else [])]
    if missing := set(wanted) - set(shard_schema(path).names):
        raise UserError(f"{path} has no column {min(missing)!r}, so no split {split!r}")
    table = read_shard(path, wanted)
    find = _places_in_arrow if shard_format(path.name) == "arrow" else _places_in_parquet
    places = np.array(list(find(path)), np.int64).reshape(-1, 2)
    columns = {"file": np.full(len(table), number), "offset": places[:, 0], "size": places[:, 1]}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    if split in PSEUDO_SPLITS:
        table = table.filter(pa.compute.equal(table["tuning"], PSEUDO_SPLITS[split]))
        table = table.drop_columns(["tuning"])
    return table


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
