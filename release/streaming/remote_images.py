"""Images by their place in files of a release, in a folder or behind a URL."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from release.errors import UserError
from release.files.commit import alone_in, write_atomically
from release.files.storage import file_size
from release.layout.byte_ranges import on_this_machine, read_ranges
from release.layout.shard_files import changed_file, readable
from release.streaming.image_cache import ImageCache

if TYPE_CHECKING:
    from upath import UPath

AT_ONCE = 64 << 20  # bytes of images that are asked for together


@dataclass(frozen=True)
class RemoteFile:
    """A file of a release behind a URL. sha256: its content's, by which images are kept."""

    release: "UPath"
    name: str
    sha256: str
    cache: ImageCache

    def __str__(self) -> str:
        return str(self.release / self.name)


ImageFile = Path | RemoteFile
Place = tuple[ImageFile, int, int]  # file, offset, size


def read_places(places: Iterable[Place]) -> Iterator[bytes]:
    """The bytes at each place, in order. Those behind a URL are fetched together, not one by one.

    StorageError, in one line, where a store keeps failing.
    """
    for group in _groups(places):
        fetched = iter(_fetched([(f, o, s) for f, o, s in group if isinstance(f, RemoteFile)]))
        for file, offset, size in group:
            yield _read_local(file, offset, size) if isinstance(file, Path) else next(fetched)


def _groups(places: Iterable[Place]) -> Iterator[list[Place]]:
    """As many together as have AT_ONCE bytes."""
    group: list[Place] = []
    total = 0
    for place in places:
        group.append(place)
        total += place[2]
        if total >= AT_ONCE:
            yield group
            group, total = [], 0
    yield group


def _read_local(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        content: bytes = file.read(size)
        return content


def _fetched(places: Sequence[tuple[RemoteFile, int, int]]) -> list[bytes]:
    """From the cache what it has; what it lacks is asked of each release at once, and kept."""
    found = {
        place: content
        for place in places
        if (content := place[0].cache.get(place[0].sha256, *place[1:])) is not None
    }
    missing: dict[UPath, list[tuple[RemoteFile, int, int]]] = defaultdict(list)
    for place in dict.fromkeys(places):
        if place not in found:
            missing[place[0].release].append(place)
    for release, lacking in missing.items():
        contents = read_ranges(release, [(file.name, o, s) for file, o, s in lacking])
        found |= dict(zip(lacking, contents, strict=True))
        kept = [(file.sha256, o, found[file, o, s]) for file, o, s in lacking]
        lacking[0][0].cache.put(kept)
    return [found[place] for place in places]


def remote_index(
    file: RemoteFile, sha256: str | None, index: Callable[[Path], pa.Table]
) -> pa.Table:
    """What `index` says of the file, kept by the file's hash: the file is copied here once a host.

    sha256: that the manifest states; UserError for a file that is another. Once it is indexed only
    its size is looked at.
    """
    folder = file.cache.folder / "index"
    kept = folder / f"{file.sha256}.parquet"
    with alone_in(folder):
        found = _read_index(kept)
        if found is not None:
            _require_size(file, int(found.schema.metadata[b"bytes"]))
            return found
        with (
            on_this_machine(file.release, file.name, sha256, file.cache.folder) as copy,
            readable(file.release / file.name),
        ):
            table = index(copy)
            facts = {**(table.schema.metadata or {}), b"bytes": str(copy.stat().st_size).encode()}
            table = table.replace_schema_metadata(facts)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_atomically(kept, sink.getvalue().to_pybytes())
        return table


def remote_copy(release: "UPath", name: str, sha256: str, cache: ImageCache) -> Path:
    """A file that is kept here as a whole, by its hash: an index. UserError if it is another."""
    folder = cache.folder / "index"
    kept = folder / f"{sha256}{Path(name).suffix}"
    with alone_in(folder):
        if not kept.is_file():
            with on_this_machine(release, name, sha256, folder) as copy:
                copy.replace(kept)
        return kept


def _read_index(path: Path) -> pa.Table | None:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        return None
    except pa.ArrowException:  # of a machine that went down: made anew
        path.unlink()
        return None


def _require_size(file: RemoteFile, size: int) -> None:
    path = file.release / file.name
    try:
        found = file_size(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not there, though its manifest lists it") from None
    if found != size:
        raise changed_file(path)
