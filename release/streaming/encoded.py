"""Images that stay encoded in the files of their release, and are read one at a time.

A release has an index of where the bytes of each stand (release/layout/image_index.py). In one of
an earlier version they are found once, and read by their place from then on, in any order. Of a
release behind a URL those of a batch are asked for together, and kept on this machine as far as
there is room.
"""

import hashlib
import mmap
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
import pyarrow as pa
from PIL import Image

from release.errors import UserError
from release.files.commit import sha256_text
from release.files.storage import ReleasePath, release_path
from release.images.decoding import decode_rgb
from release.layout.image_index import file_column, open_index, write_index
from release.layout.image_places import image_places
from release.layout.image_sets import (
    class_labels,
    listed_files,
    noted_index,
    of_part,
    require_listed_sizes,
)
from release.layout.shard_files import (
    read_shard,
    readable,
    require_unchanged,
    shard_format,
    shard_schema,
)
from release.real_sources.source import PSEUDO_SPLITS
from release.streaming.image_cache import DEFAULT_CACHE, ImageCache, on_disk
from release.streaming.remote_images import (
    ImageFile,
    RemoteFile,
    read_places,
    remote_copy,
    remote_index,
)

MAPPED_FILE = "images.feather"
COLUMNS = ("image_id", "label", "file", "offset", "size", "sha256")


@dataclass(frozen=True)
class EncodedImages:
    """Where each image's bytes are; in memory there is no more than that, its label and its id.

    rows: image_id, label, file, offset, size as release/layout/image_index.py has them, and sha256,
    or null where the image's file was hashed as a whole. root: what `file` is within; None if those
    are whole paths. remote: those behind a URL, by `file` as it stands in rows. mapped: the file of
    which `rows` are a view, if they are: other processes share its memory then.
    """

    rows: pa.Table
    root: "ReleasePath | None"
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    mapped: Path | None = None
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = self.root, self.class_ids, self.class_names, self.mapped, self.remote
        if self.mapped is None:
            return EncodedImages, (self.rows, *facts)
        return _map_images, facts

    @cached_property
    def labels(self) -> np.ndarray:
        """int64[N]."""
        return self._numbers("label")

    @cached_property
    def file(self) -> np.ndarray:
        """int32[N]: of each image the number of its file."""
        return _as_numpy(_whole(self.rows["file"]).indices)

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

    @property
    def is_remote(self) -> np.ndarray:
        """bool[N]: the image is behind a URL."""
        remote = np.array([name in self.remote for name in self._files.to_pylist()])
        return np.asarray(remote[self.file])

    def path(self, file: int) -> ReleasePath:
        """Where file number `file` is."""
        name = self._files[int(file)].as_py()
        return release_path(name) if self.root is None else self.root / name

    def _image_file(self, file: int) -> ImageFile:
        found = self.remote.get(self._files[int(file)].as_py()) or self.path(file)
        assert isinstance(found, ImageFile)
        return found

    def read(self, rows: Sequence[int]) -> Iterator[bytes]:
        """The bytes of each image in turn; UserError if they are not those the release held."""
        places = (
            (self._image_file(self.file[row]), int(self.offset[row]), int(self.size[row]))
            for row in rows
        )
        for row, content in zip(rows, read_places(places), strict=True):
            self._require_listed(row, content)
            yield content

    def _require_listed(self, row: int, content: bytes) -> None:
        stated = self.rows["sha256"][row].as_py()
        if stated is not None and hashlib.sha256(content).digest() != stated:
            raise UserError(
                f"{self.named(row)}: is not the image that the index of its release lists: its "
                "SHA-256 is another; `release verify` names all that was changed"
            )

    def image(self, row: int) -> Image.Image:
        """As `images`, of one."""
        return next(self.images([row]))

    def images(self, rows: Sequence[int]) -> Iterator[Image.Image]:
        """Each decoded, RGB; UserError names the file and the image if one cannot be."""
        for row, content in zip(rows, self.read(rows), strict=True):
            try:
                yield decode_rgb(content)
            except UserError as error:
                raise UserError(f"{self.named(row)}: {error}") from None

    def named(self, row: int) -> str:
        """Its file and its id."""
        return f"{self.path(self.file[row])}, image {self.rows['image_id'][row].as_py()}"

    def take(self, rows: np.ndarray) -> "EncodedImages":
        """Those rows, in that order."""
        return replace(self, rows=self.rows.take(pa.array(rows)), mapped=None)

    def relabelled(
        self, labels: np.ndarray, class_ids: tuple[str, ...], class_names: tuple[str, ...]
    ) -> "EncodedImages":
        """The same images with labels int64[N] of other classes."""
        place = self.rows.column_names.index("label")
        column = pa.array(labels, self.rows.schema.field("label").type)
        rows = self.rows.set_column(place, self.rows.schema.field("label"), column)
        return replace(self, rows=rows, class_ids=class_ids, class_names=class_names, mapped=None)

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
        return _as_numpy(_whole(self.rows[name]))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _as_numpy(numbers: pa.Array) -> np.ndarray:
    """The same memory; to_numpy would import pandas, which takes each loader 40 MB."""
    return np.from_dlpack(numbers)


def _map_images(
    root: "ReleasePath | None",
    ids: tuple[str, ...],
    names: tuple[str, ...],
    mapped: Path,
    remote: Mapping[str, RemoteFile],
) -> EncodedImages:
    return EncodedImages(open_index(mapped), root, ids, names, mapped, remote)


def join_encoded(parts: Sequence[EncodedImages]) -> EncodedImages:
    """All parts one after the other."""
    if len(parts) == 1:
        return parts[0]
    tables = [_with_whole_paths(part) for part in parts]
    rows = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    remote = {str(file): file for part in parts for file in part.remote.values()}
    return replace(parts[0], rows=rows, root=None, mapped=None, remote=remote)


def _with_whole_paths(part: EncodedImages) -> pa.Table:
    paths = [str(part.path(number)) for number in range(len(part._files))]
    rows = part.rows.select(COLUMNS)  # without tuning, which generated images do not have
    return rows.set_column(COLUMNS.index("file"), "file", file_column(part.file, paths))


def make_room(cache: ImageCache, sets: Sequence[EncodedImages]) -> None:
    """In the cache, for the images of `sets` that will be fetched from behind a URL."""
    wanted: set[str] = set()
    needed = 0
    for data in sets:
        if data.remote:
            wanted |= {file.sha256 for file in data.remote.values()}
            needed += int(on_disk(data.size[data.is_remote]).sum())
    if wanted:
        cache.make_room(wanted, needed)


def index_images(
    release: ReleasePath,
    config: str,
    split: str,
    advance: Callable[[int], None] = lambda _: None,
    cache: ImageCache = DEFAULT_CACHE,
) -> EncodedImages:
    """Find the images of one split, in the order of their ids; `advance` gets rows just read.

    Of a release with an index the images' files are not read here: each image is compared with the
    index once it is. cache: for a release behind a URL. UserError for files that are not there or
    have another size, and for files whose images are compressed.
    """
    files = listed_files(release, config, split)
    remote = {}
    if not isinstance(release, Path):
        remote = {
            name: RemoteFile(release, name, sha256 or sha256_text(str(release / name)), cache)
            for name, sha256 in files
        }
    noted = noted_index(release, config, split)
    if noted is None:
        found = [
            _search(release, name, sha256, split, remote.get(name), advance)
            for name, sha256 in files
        ]
        rows = pa.concat_tables(found).unify_dictionaries().sort_by("image_id").combine_chunks()
        mapped, schema = None, found[0].schema
    else:
        require_listed_sizes(release, config, split)
        mapped = _noted_file(release, noted, cache)
        rows = open_index(mapped)
        if split in PSEUDO_SPLITS:
            rows, mapped = of_part(rows, split, release / noted[0]), None
        advance(len(rows))
        first = release / files[0][0]
        with readable(first):
            schema = shard_schema(first)
    ids, names = class_labels(schema)
    return EncodedImages(rows, release, ids, names, mapped, remote)


def _noted_file(release: ReleasePath, noted: tuple[str, str], cache: ImageCache) -> Path:
    """The index of a release on this machine, compared with its manifest."""
    name, sha256 = noted
    if not isinstance(release, Path):
        return remote_copy(release, name, sha256, cache)
    require_unchanged(release / name, sha256)
    return release / name


def _search(
    release: ReleasePath,
    name: str,
    sha256: str | None,
    split: str,
    remote: RemoteFile | None,
    advance: Callable[[int], None],
) -> pa.Table:
    """The rows of one file of a release without an index: its images are looked for."""
    path = release / name
    if remote is not None:
        table = remote_index(remote, sha256, _search_file)
    else:
        assert isinstance(path, Path)
        if sha256 is not None:
            require_unchanged(path, sha256)
        with readable(path):
            table = _search_file(path)
    if missing := {"image_id", "label"} - set(table.column_names):
        raise UserError(f"{path} has no column {min(missing)!r}, so no split {split!r}")
    table = of_part(table, split, path)
    place = table.column_names.index("offset")
    file = file_column(np.zeros(len(table), np.int32), [name])
    table = table.add_column(place, "file", file)
    advance(len(table))
    return table.select(COLUMNS)


def _search_file(path: Path) -> pa.Table:
    """As an index, of all rows in their order; sha256 is null, as the file is hashed as a whole."""
    there = shard_schema(path).names
    table = read_shard(path, [name for name in ("image_id", "label", "tuning") if name in there])
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offsets, sizes = image_places(content, shard_format(path.name))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    kinds = {"image_id": pa.large_string(), "label": pa.int64()}
    columns = {
        name: table[name].cast(kinds.get(name, table[name].type)) for name in table.column_names
    }
    columns |= {
        "offset": pa.array(offsets),
        "size": pa.array(sizes, pa.int32()),
        "sha256": pa.nulls(len(table), pa.binary(32)),
    }
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)
