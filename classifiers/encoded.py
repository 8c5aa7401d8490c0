"""Images that stay encoded in the files of their release, and are read one at a time.

A release has an index of where the bytes of each stand (generation/image_index.py). In one of an
earlier version they are found once, and read by their place from then on, in any order.
"""

import hashlib
import mmap
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
import pyarrow as pa
from PIL import Image

from generation.decoding import decode_rgb
from generation.errors import UserError
from generation.image_index import file_column, open_index, write_index
from generation.image_places import image_places
from generation.image_sets import (
    PSEUDO_SPLITS,
    class_labels,
    iterate_tables,
    noted_index,
    require_listed_sizes,
    split_files,
    unchanged_files,
)
from generation.shard_files import read_shard, readable, shard_format, shard_schema
from generation.storage import ReleasePath, release_path

MAPPED_FILE = "images.feather"


@dataclass(frozen=True)
class EncodedImages:
    """Where each image's bytes are; in memory there is no more than that, its label and its id.

    rows: image_id, label, file, offset, size as generation/image_index.py has them, and sha256 or
    null where the image's file was hashed as a whole. root: what `file` is within; None if those
    are whole paths. mapped: the file of which `rows` are a view, if they are: other processes share
    its memory then. kept: what deletes that file in the end, where it is ours.
    """

    rows: pa.Table
    root: "ReleasePath | None"
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    mapped: Path | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = self.root, self.class_ids, self.class_names
        if self.mapped is None:
            return EncodedImages, (self.rows, *facts)
        return _map_images, (self.mapped, *facts)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64[N]."""
        return self._numbers("label")

    @cached_property
    def file(self) -> np.ndarray:
        """int32[N]: of each image the number of its file."""
        return np.asarray(_whole(self.rows["file"]).indices.to_numpy())

    @cached_property
    def offset(self) -> np.ndarray:
        """int64[N]: where the image's bytes begin in its file."""
        return self._numbers("offset")

    @cached_property
    def size(self) -> np.ndarray:
        """int32[N]: how many bytes it has."""
        return self._numbers("size")

    @property
    def image_ids(self) -> tuple[str, ...]:
        """All of them: made anew each time."""
        return tuple(self.rows["image_id"].to_pylist())

    @cached_property
    def _files(self) -> pa.Array:
        return _whole(self.rows["file"]).dictionary

    def path(self, file: int) -> ReleasePath:
        """Where file number `file` is."""
        name = self._files[int(file)].as_py()
        return release_path(name) if self.root is None else self.root / name

    def read(self, row: int) -> bytes:
        """The image's bytes; UserError if they are not those that the release held."""
        with self.path(self.file[row]).open("rb", buffering=0) as file:
            file.seek(int(self.offset[row]))
            content: bytes = file.read(int(self.size[row]))
        stated = self.rows["sha256"][row].as_py()
        if stated is not None and hashlib.sha256(content).digest() != stated:
            raise UserError(
                "is not the image that the index of its release lists: its SHA-256 is another; "
                "`release verify` names all that was changed"
            )
        return content

    def image(self, row: int) -> Image.Image:
        """Decoded, RGB; UserError names the file and the image if it cannot be."""
        try:
            return decode_rgb(self.read(row))
        except UserError as error:
            image_id = self.rows["image_id"][row].as_py()
            path = self.path(self.file[row])
            raise UserError(f"{path}, image {image_id}: {error}") from None

    def take(self, rows: np.ndarray) -> "EncodedImages":
        """Those rows, in that order."""
        return replace(self, rows=self.rows.take(pa.array(rows)), mapped=None)

    def mapped_alone(self) -> "EncodedImages":
        """The same, as a view of a file: this is then small where it is sent to other processes."""
        if self.mapped is not None:
            return self
        folder = mkdtemp(prefix="synthetic-imagenet-")
        path = Path(folder) / MAPPED_FILE
        with pa.OSFile(str(path), "wb") as sink:
            write_index(sink, self.rows.combine_chunks())
        rows = open_index(path)
        finalize(rows, shutil.rmtree, folder, ignore_errors=True)
        return replace(self, rows=rows, mapped=path)

    def _numbers(self, name: str) -> np.ndarray:
        return np.asarray(_whole(self.rows[name]).to_numpy())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _map_images(
    path: Path, root: "ReleasePath | None", ids: tuple[str, ...], names: tuple[str, ...]
) -> EncodedImages:
    return EncodedImages(open_index(path), root, ids, names, path)


def join_encoded(parts: Sequence[EncodedImages]) -> EncodedImages:
    """All parts one after the other."""
    if len(parts) == 1:
        return parts[0]
    tables = [_with_whole_paths(part) for part in parts]
    rows = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    return replace(parts[0], rows=rows, root=None, mapped=None)


def _with_whole_paths(part: EncodedImages) -> pa.Table:
    paths = [str(part.path(number)) for number in range(len(part._files))]
    place = part.rows.column_names.index("file")
    return part.rows.set_column(place, "file", file_column(part.file, paths))


def index_images(
    release: ReleasePath, config: str, split: str, advance: Callable[[int], None] = lambda _: None
) -> EncodedImages:
    """Find the images of one split, in the order of their ids; `advance` gets rows just read.

    Of a release with an index the images' files are not read here: each image is compared with the
    index once it is. UserError for a release behind a URL, files that are not there or have another
    size, and for files whose images are compressed.
    """
    paths = split_files(release, config, split)
    if not all(isinstance(path, Path) for path in paths):
        raise UserError(
            f"{release}: images are read one at a time for this recipe, or where they have no room "
            "in memory, which takes a folder on this machine; copy the release first"
        )
    index = noted_index(release, config, split)
    if index is None:
        rows, root, mapped = _search(release, config, split, advance), None, None
    else:
        require_listed_sizes(release, config, split)
        rows, root, mapped = open_index(index), release, index if isinstance(index, Path) else None
        if split in PSEUDO_SPLITS:
            rows, mapped = _part_of_train(rows, split, index), None
        advance(len(rows))
    with readable(paths[0]):
        ids, names = class_labels(shard_schema(paths[0]))
    return EncodedImages(rows, root, ids, names, mapped)


def split_labels(release: ReleasePath, config: str, split: str) -> np.ndarray:
    """int64[N], in no order that means anything; from the index if there is one."""
    index = noted_index(release, config, split)
    if index is None:
        tables = list(iterate_tables(release, config, split, ["label"]))
    else:
        rows = open_index(index)
        tables = [_part_of_train(rows, split, index) if split in PSEUDO_SPLITS else rows]
    return np.concatenate([table["label"].to_numpy() for table in tables])


def _part_of_train(rows: pa.Table, split: str, path: ReleasePath) -> pa.Table:
    if "tuning" not in rows.column_names:
        raise UserError(f"{path} has no column 'tuning', so no split {split!r}")
    return rows.filter(pa.compute.equal(rows["tuning"], PSEUDO_SPLITS[split])).combine_chunks()


def _search(
    release: ReleasePath, config: str, split: str, advance: Callable[[int], None]
) -> pa.Table:
    """The rows of a release without an index: in each file the images are looked for."""
    found = []
    for path in unchanged_files(release, config, split):
        with readable(path):
            assert isinstance(path, Path)
            found.append(_search_file(path, split))
        advance(len(found[-1]))
    table = pa.concat_tables(found).unify_dictionaries()
    return table.sort_by("image_id").combine_chunks()


def _search_file(path: Path, split: str) -> pa.Table:
    wanted = ["image_id", "label", *(["tuning"] if split in PSEUDO_SPLITS else [])]
    if missing := set(wanted) - set(shard_schema(path).names):
        raise UserError(f"{path} has no column {min(missing)!r}, so no split {split!r}")
    table = read_shard(path, wanted)
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offsets, sizes = image_places(content, shard_format(path.name))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    rows = pa.table(
        {
            "image_id": table["image_id"].cast(pa.large_string()),
            "label": table["label"].cast(pa.int64()),
            "file": file_column(np.zeros(len(table), np.int32), [str(path)]),
            "offset": pa.array(offsets),
            "size": pa.array(sizes, pa.int32()),
            "sha256": pa.nulls(len(table), pa.binary(32)),
        }
    )
    if split in PSEUDO_SPLITS:
        rows = rows.filter(pa.compute.equal(table["tuning"], PSEUDO_SPLITS[split]))
    return rows
