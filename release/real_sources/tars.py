"""ImageNet as image-net.org ships it: ILSVRC2012_img_train.tar, a tar of one tar a class, and
ILSVRC2012_img_val.tar. Nothing is unpacked: an index says where each image's bytes stand.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from release.errors import UserError
from release.real_sources.annotations import FORMS, find_labels
from release.real_sources.class_names import classes_of
from release.real_sources.files import is_hidden, only_images, suffix_counts
from release.real_sources.kept import kept_table
from release.real_sources.source import RealSource, file_version, named_splits

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
INDEX = pa.schema(
    {"class": pa.string(), "name": pa.string(), "offset": pa.int64(), "size": pa.int64()}
)


@dataclass(frozen=True)
class TarSplit:
    """Images within one uncompressed tar. offsets, sizes: int64[N], in bytes."""

    archive: Path
    names: Sequence[str]
    offsets: np.ndarray
    sizes: np.ndarray
    class_names: Sequence[str]
    labels: Sequence[int]

    def key(self, i: int) -> str:
        return f"{self.class_names[self.labels[i]]}/{self.names[i]}"

    def version(self, i: int) -> str:
        return f"{self._version} {self.offsets[i]}"

    @cached_property
    def _version(self) -> str:
        return file_version(self.archive)

    def read(self, i: int) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(int(self.offsets[i]))
            return file.read(int(self.sizes[i]))


def is_archives(root: Path) -> bool:
    """Whether one of ImageNet's archives stands in the folder."""
    return any((root / name).is_file() for name in ARCHIVES.values())


def read_archives(root: Path) -> RealSource:
    """UserError for an archive that is cut or compressed."""
    tables, remarks = {}, list[str]()
    for split, name in ARCHIVES.items():
        if not (root / name).is_file():
            continue
        table = _only_images(name, index_archive(root / name), remarks)
        if split == "val":
            names = table["name"].to_pylist()
            wnids = find_labels(split, names, [root])
            if wnids is None:
                remarks.append(f"{name} is left out: it has no labels; put {FORMS} beside it")
                continue
            table = table.set_column(0, "class", pa.array(wnids, pa.string()))
        elif "" in table["class"].to_pylist():
            raise UserError(f"{root / name} is no tar of one tar a class: it holds images itself")
        tables[split] = table.sort_by([("class", "ascending"), ("name", "ascending")])
    counts = {split: Counter(table["class"].to_pylist()) for split, table in tables.items()}
    classes, more = classes_of(
        {s: {c: range(n) for c, n in by.items()} for s, by in counts.items()}
    )
    label = {entry.name: entry.label for entry in classes}
    splits = {
        split: TarSplit(
            root / ARCHIVES[split],
            table["name"].to_pylist(),
            table["offset"].to_numpy(),
            table["size"].to_numpy(),
            list(label),
            [label[name] for name in table["class"].to_pylist()],
        )
        for split, table in tables.items()
    }
    return RealSource(
        root.resolve().name, "unknown", classes, named_splits(splits), remarks=(*remarks, *more)
    )


def _only_images(archive: str, table: pa.Table, remarks: list[str]) -> pa.Table:
    passed = Counter[str]()
    images = set(only_images(table["name"].to_pylist(), passed))
    if passed:
        remarks.append(f"{archive}: not taken: {suffix_counts(passed)}")
    return table.filter(pc.is_in(table["name"], pa.array(sorted(images), pa.string())))


def index_archive(archive: Path) -> pa.Table:
    """INDEX of every file in the tar and in the tars within it, hidden ones left out.

    Made once for each archive, as it takes minutes.
    """
    status = archive.stat()
    about = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    return kept_table("tars", about, lambda: _index(archive))


def _index(archive: Path) -> pa.Table:
    try:
        return pa.Table.from_pylist(list(_members(archive)), INDEX)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be read as an uncompressed tar: {error}") from None


def _members(archive: Path) -> Iterator[dict[str, str | int]]:
    with tarfile.open(archive, "r:") as outer:
        for member in _files(outer):
            if not member.name.endswith(".tar"):
                yield _row(PurePath(member.name).parent.name, member, 0)
                continue
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                for image in _files(inner):
                    yield _row(PurePath(member.name).stem, image, member.offset_data)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if member.isfile() and not any(map(is_hidden, PurePath(member.name).parts)):
            yield member


def _row(class_name: str, member: tarfile.TarInfo, start: int) -> dict[str, str | int]:
    name = PurePath(member.name).name
    return {
        "class": class_name,
        "name": name,
        "offset": start + member.offset_data,
        "size": member.size,
    }
