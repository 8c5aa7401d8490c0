"""Which images a split holds, shard by shard, without decoding them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metrics.features.mergeable import sampling_keys
from release.classes.class_list import ClassEntry, same_classes
from release.errors import UserError
from release.files.commit import sha256_bytes
from release.files.hash_named import find_checked, write_checked
from release.files.storage import ReleasePath, list_files
from release.layout.byte_ranges import on_this_machine
from release.layout.image_index import RowsByFile
from release.layout.image_sets import split_files, split_index
from release.layout.manifest import MANIFEST_FILE, Manifest, ShardRecord, read_manifest
from release.layout.shard_files import FileState, file_state, iterate_shard, readable, shard_schema
from release.layout.training_views import require_whole, view_of
from release.real_sources.source import PSEUDO_SPLITS

READ_ROWS = 1024  # encoded images held at a time


@dataclass(frozen=True)
class ImageSet:
    """One split of one fixed-resolution configuration of a release.

    stored: where the set takes only some of its release's classes, all of them, in label order.
    """

    release: ReleasePath
    config: str
    split: str
    manifest: Manifest
    stored: tuple[ClassEntry, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What a result says about the set."""
        view = view_of(self.manifest, self.config)
        return {
            "name": self.manifest.name,
            "content_sha256": self.manifest.content_sha256,
            "config": self.config,
            "split": self.split,
            **({"classes": [entry.wnid for entry in self.manifest.classes]} if self.stored else {}),
            **({"derived": asdict(view)} if view else {}),
        }

    @property
    def label(self) -> str:
        """NAME:CONFIG:SPLIT."""
        return f"{self.manifest.name}:{self.config}:{self.split}"

    def shards(self) -> tuple[ShardRecord, ...]:
        """The records of the split's files, in plan order, which is that of their names."""
        records = {self.release / record.path: record for record in self.manifest.shards}
        sizes = list_files(self.release / self.config)
        found = []
        for path in split_files(self.release, self.config, self.split):
            record = records.get(path)
            if (
                record is None
                or sizes.get(record.path.removeprefix(f"{self.config}/")) != record.bytes
            ):
                raise UserError(f"{path} is not the file that the manifest of its release names")
            found.append(record)
        return tuple(found)

    def count(self, cache: Path) -> int:
        """Images of the split."""
        if self.stored:
            return int(self.count_per_class(cache).sum())
        if self.split not in PSEUDO_SPLITS:
            return sum(shard.rows for shard in self.shards())
        return sum(len(read_image_list(self, shard, cache)) for shard in self.shards())

    def count_per_class(self, cache: Path) -> np.ndarray:
        """int64[C]: images of each class, by label."""
        classes = self.manifest.classes
        if self.split not in PSEUDO_SPLITS:
            counts = self.manifest.per_class(self.config, self.split)
            return np.array([counts[entry.wnid] for entry in classes], np.int64)
        labels = [read_image_list(self, shard, cache).labels for shard in self.shards()]
        return np.bincount(np.concatenate(labels), minlength=len(classes))

    def sorted_keys(self, cache: Path) -> np.ndarray:
        """uint64[n]: sampling keys of all its images, ascending."""
        keys = [
            sampling_keys(read_image_list(self, shard, cache).image_ids) for shard in self.shards()
        ]
        return np.sort(np.concatenate(keys))

    def with_split(self, split: str) -> "ImageSet":
        """Another split of the same release and configuration."""
        return replace(self, split=split)

    def of_classes_of(self, other: "ImageSet") -> "ImageSet":
        """Only the images of the other's classes, labelled as there, if its own are more."""
        ours, theirs = self.manifest.classes, other.manifest.classes
        wnids = {entry.wnid for entry in theirs}
        if self.manifest.dataset != other.manifest.dataset or same_classes(ours, theirs):
            return self
        if not wnids < {entry.wnid for entry in ours}:
            return self
        return replace(self, manifest=replace(self.manifest, classes=theirs), stored=ours)


def same_label(sets: Sequence[ImageSet]) -> str | None:
    """The first label that two of them have: both would write one result file."""
    labels = [own.label for own in sets]
    return next((label for label in labels if labels.count(label) > 1), None)


def open_image_set(release: ReleasePath, config: str, split: str) -> ImageSet:
    """Raises UserError if there is no such release, configuration or split, or not all of it."""
    image_set = ImageSet(release, config, split, read_manifest(release))
    require_whole(image_set.manifest, config)
    image_set.shards()
    return image_set


@dataclass(frozen=True)
class ImageList:
    """The images of one shard that belong to the split, in file order.

    rows int64[N]: their rows in the file; sha256: 32 bytes each, of the encoded image.
    """

    rows: np.ndarray
    sha256: tuple[bytes, ...]
    image_ids: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def is_listed(image_set: ImageSet, shard: ShardRecord, cache: Path) -> bool:
    """Whether the images of the file are known without reading it."""
    if _index(image_set) is not None:
        return True
    return _find_list(cache, shard) is not None


def read_image_list(
    image_set: ImageSet, shard: ShardRecord, cache: Path, copy: Path | None = None
) -> ImageList:
    """From the release's index of its images; of one without, from the cache if a file of this
    content was listed before, else by reading the file.

    copy: of the file on this machine, if there is one. UserError if the file is not the one that
    the manifest lists.
    """
    index = _index(image_set)
    if index is None:
        table = _cached_list(image_set, shard, cache, copy)
    else:
        table = _listed_rows(index, shard)
    rows = np.arange(table.num_rows)
    if image_set.split in PSEUDO_SPLITS:
        if "tuning" not in table.column_names:
            raise UserError(f"{image_set.release} has no tuning rows: use split 'train'")
        rows = rows[table["tuning"].to_numpy() == PSEUDO_SPLITS[image_set.split]]
        table = table.take(pa.array(rows))
    labels = table["label"].to_numpy().astype(np.int64)
    if image_set.stored:
        labels = _labels_here(image_set)[labels]
        rows, table, labels = rows[labels >= 0], table.filter(labels >= 0), labels[labels >= 0]
    return ImageList(
        rows,
        tuple(table["image_sha256"].to_pylist()),
        tuple(table["image_id"].to_pylist()),
        labels,
    )


def _index(image_set: ImageSet) -> RowsByFile | None:
    manifest = image_set.release / MANIFEST_FILE
    state = file_state(manifest) if isinstance(manifest, Path) else ""
    return _index_in_state(image_set.release, image_set.config, image_set.split, state)


@lru_cache(maxsize=4)  # a train set, a test set, and releases to compare with them
def _index_in_state(
    release: ReleasePath,
    config: str,
    split: str,
    state: FileState,  # noqa: ARG001
) -> RowsByFile | None:
    table = split_index(release, config, split)
    if table is None:
        return None
    names = [name for name in table.column_names if name not in ("file", "offset", "size")]
    return RowsByFile.of(table, names)


def _listed_rows(index: RowsByFile, shard: ShardRecord) -> pa.Table:
    """As a list in the cache has them."""
    return index.rows(shard.path).rename_columns({"sha256": "image_sha256"})


def _cached_list(
    image_set: ImageSet, shard: ShardRecord, cache: Path, copy: Path | None
) -> pa.Table:
    """image_sha256, image_id, label, and tuning where the release marks such rows."""
    path = _find_list(cache, shard)
    if path is None:
        sink = pa.BufferOutputStream()
        with _file_of(image_set, shard, copy) as file, readable(image_set.release / shard.path):
            pq.write_table(_list_images(file), sink)
        content = sink.getvalue().to_pybytes()
        path = write_checked(_list_folder(cache, shard), shard.sha256, ".parquet", content)
    return pq.read_table(path)


def _list_folder(cache: Path, shard: ShardRecord) -> Path:
    """One of 256: to find a name all beside it are looked at."""
    return cache / "images" / shard.sha256[:2]


def _find_list(cache: Path, shard: ShardRecord) -> Path | None:
    """Of the shard's images, if they are listed; an earlier version had all lists in one folder."""
    found = find_checked(_list_folder(cache, shard), shard.sha256, ".parquet")
    if found is None and _holds_lists(cache / "images"):
        return find_checked(cache / "images", shard.sha256, ".parquet")
    return found


def _holds_lists(folder: Path) -> bool:
    """Whether an earlier version has put lists into the folder itself."""
    try:
        return _holds_lists_in_state(folder, folder.stat().st_mtime_ns)
    except FileNotFoundError:
        return False


@lru_cache(maxsize=4)
def _holds_lists_in_state(folder: Path, _state: int) -> bool:
    return any(folder.glob("*.parquet"))


def _file_of(
    image_set: ImageSet, shard: ShardRecord, copy: Path | None
) -> AbstractContextManager[Path]:
    if copy is not None:
        return nullcontext(copy)
    return on_this_machine(image_set.release, shard.path, shard.sha256)


def _labels_here(image_set: ImageSet) -> np.ndarray:
    """int64[C]: for each label in the files the set's own; -1 for a class that it leaves out."""
    here = {entry.wnid: entry.label for entry in image_set.manifest.classes}
    return np.array([here.get(entry.wnid, -1) for entry in image_set.stored], np.int64)


def _list_images(path: ReleasePath) -> pa.Table:
    """image_sha256, image_id, label, and tuning where the release marks such rows."""
    names = ["image", "image_id", "label"]
    names += ["tuning"] if "tuning" in shard_schema(path).names else []
    hashes: list[bytes] = []
    others = []
    for batch in iterate_shard(path, names, READ_ROWS):
        data = batch.column("image").field("bytes").to_pylist()
        hashes += [bytes.fromhex(sha256_bytes(content)) for content in data]
        others.append(batch.select(names[1:]))
    schema = pa.schema([shard_schema(path).field(name) for name in names[1:]])
    table = pa.Table.from_batches(others, schema)  # of a shard whose images were all rejected, too
    return table.append_column("image_sha256", pa.array(hashes, pa.binary(32)))
