"""Pieces of files behind a URL: many at once, asked for again where the store fails in passing."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from release.errors import UserError
from release.files.storage import ReleasePath, StorageError, file_size, reaching
from release.layout.shard_files import changed_file, require_unchanged

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before a range that failed is asked for again
PIECE = 8 << 20  # bytes of a file that is copied are asked for in pieces,
PIECES = 8  # so many at once
# What no waiting mends.
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError)

Range = tuple[str, int, int]  # a file within the release, its first byte, how many


def read_ranges(release: ReleasePath, ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of each range, in order, all asked for at once.

    A range that fails is asked for again, after WAITS. Raises UserError for a file that is not
    there, StorageError, in one line, where the store keeps failing.
    """
    found: dict[int, bytes] = {}
    for wait in (*WAITS, None):
        left = [i for i in range(len(ranges)) if i not in found]
        failure = _ask(release, ranges, left, found)
        if failure is None:
            break
        if wait is None or isinstance(failure, LASTING):
            raise _line(release, failure)
        time.sleep(wait)
    return [found[i] for i in range(len(ranges))]


def _ask(
    release: ReleasePath, ranges: Sequence[Range], left: Sequence[int], found: dict[int, bytes]
) -> Exception | None:
    """Fill in `found` what the store gives of `left`; the first failure, None if there was none."""
    assert not isinstance(release, Path)
    failure: Exception | None = None
    paths = [(release / ranges[i][0]).path for i in left]
    starts = [ranges[i][1] for i in left]
    ends = [ranges[i][1] + ranges[i][2] for i in left]
    try:
        contents = release.fs.cat_ranges(paths, starts, ends, on_error="return")
    except Exception as error:  # each store's client has its own; raised in the end
        return error
    for i, content in zip(left, contents, strict=True):
        name, _, size = ranges[i]
        if isinstance(content, Exception):
            failure = failure or content
        elif len(content) != size:
            failure = failure or EOFError(f"{name} gave {len(content):,} bytes of {size:,}")
        else:
            found[i] = bytes(content)
    return failure


def _line(release: ReleasePath, failure: Exception) -> UserError:
    if isinstance(failure, FileNotFoundError):
        return UserError(f"{release}: a file that its manifest lists is not there: {failure}")
    try:
        with reaching(release):
            raise failure
    except StorageError as error:
        return error


@contextmanager
def on_this_machine(
    release: ReleasePath, name: str, sha256: str | None, folder: Path | None = None
) -> Iterator[Path]:
    """The file `name` of a release: itself if that is a folder, else a copy, gone in the end.

    sha256: that the manifest states; UserError for another file. folder: for the copy, by default
    the system's for temporary files.
    """
    if isinstance(release, Path):
        if sha256 is not None:
            require_unchanged(release / name, sha256)
        yield release / name
        return
    with TemporaryDirectory(dir=folder) as place:
        copy = Path(place) / name.rsplit("/", maxsplit=1)[-1]
        if _copy(release, name, copy) != sha256 and sha256 is not None:
            raise changed_file(release / name)
        yield copy


def _copy(release: ReleasePath, name: str, target: Path) -> str:
    """SHA-256 of what was copied."""
    try:
        size = file_size(release / name)
    except FileNotFoundError:
        raise UserError(f"{release / name} is not there, though its manifest lists it") from None
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for start in range(0, size, PIECE * PIECES):
            stop = min(size, start + PIECE * PIECES)
            pieces = [(name, i, min(PIECE, stop - i)) for i in range(start, stop, PIECE)]
            for content in read_ranges(release, pieces):
                digest.update(content)
                file.write(content)
    return digest.hexdigest()
