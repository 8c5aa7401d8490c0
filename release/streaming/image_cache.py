"""Images of releases behind a URL, kept on this machine: bounded in bytes, one cache a host.

A training sees every image once an epoch, in another random order each time. Of such a scan a
cache that replaces what is oldest gives back less than its share; one that keeps what it has and
takes no more once it is full gives back exactly its share (MinIO cache; Mohan et al. 2021,
"Analyzing and Mitigating Data Stalls in DNN Training", VLDB). So nothing is replaced while a
training runs; what other trainings left goes when one begins that needs the room.

    CACHE/images/SHA256-OF-FILE/OFFSET    an image's bytes, then their CRC-32
    CACHE/index/SHA256-OF-FILE.parquet    where the images of a file are
    CACHE/bytes    what the images take; also the lock of all who change it

Processes share it by the file system alone. An image that is damaged, or was cut off when the
machine went down, does not fit its CRC and is fetched again.
"""

import errno
import fcntl
import os
import shutil
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import platformdirs

from release.errors import UserError

BLOCK = 4096  # bytes that file systems give out
CHECK = 4  # bytes of the CRC-32
LEFT_FREE = 2 << 30  # bytes of the disk that are left to others
# The disk is full, or somebody else has just made room of the folder.
NOT_KEPT = (errno.ENOSPC, errno.EDQUOT, errno.ENOENT)
DEFAULT_FOLDER = Path(platformdirs.user_cache_dir("synthetic-imagenet")) / "training"
DEFAULT_GIGABYTES = 50.0
Size = TypeVar("Size", int, np.ndarray)


@dataclass(frozen=True)
class ImageCache:
    """limit: bytes that the images in `folder` may take, 0 to keep none."""

    folder: Path = DEFAULT_FOLDER
    limit: int = int(DEFAULT_GIGABYTES * 1e9)

    def get(self, sha256: str, offset: int, size: int) -> bytes | None:
        """The image of that size at `offset` in the file of that hash, None if it is not kept."""
        try:
            content = self._path(sha256, offset).read_bytes()
        except FileNotFoundError:
            return None
        image = content[:-CHECK]
        fits = len(image) == size and content[-CHECK:] == _check(image)
        return image if fits else None

    def put(self, images: Sequence[tuple[str, int, bytes]]) -> None:
        """Keep images, each with its file's hash and its offset there, as far as there is room."""
        contents = [(self._path(name, offset), image) for name, offset, image in images]
        room = self._take_room([on_disk(len(image) + CHECK) for _, image in contents])
        lost = 0
        for path, image in contents[:room]:
            if not _written(path, image + _check(image)):
                lost += on_disk(len(image) + CHECK)
        if lost:
            with self._counter() as used:
                used.add(-lost)

    def make_room(self, wanted: Collection[str], needed: int) -> None:
        """Before a training on the files `wanted`, by hash, of `needed` bytes of images.

        As long as these might not fit, what others left goes, what was used least lately first.
        """
        kept = self.folder / "images"
        if not self.limit or not kept.is_dir():
            return
        with self._counter() as used:
            own = [kept / name for name in sorted(wanted) if (kept / name).is_dir()]
            for path in own:
                os.utime(path)  # reading leaves no trace
            if used.bytes + needed <= self.limit:
                return
            lacking = max(0, needed - sum(map(_bytes_below, own)))
            for path in sorted(kept.iterdir(), key=lambda path: path.stat().st_mtime):
                # of its own something goes only where the limit was higher before
                needs = 0 if path.name in wanted else lacking
                if used.bytes + needs > self.limit:
                    used.add(-_bytes_below(path))
                    shutil.rmtree(path, ignore_errors=True)  # another may be writing there

    def _path(self, sha256: str, offset: int) -> Path:
        return self.folder / "images" / sha256 / str(offset)

    def _take_room(self, sizes: Sequence[int]) -> int:
        """How many of files of these sizes there is room for, within the limit and on the disk."""
        if not self.limit or not sizes:
            return 0
        with self._counter() as used:
            left = min(self.limit - used.bytes, shutil.disk_usage(self.folder).free - LEFT_FREE)
            ends = np.cumsum(sizes)
            fitting = int(np.searchsorted(ends, left, side="right"))
            used.add(int(ends[fitting - 1]) if fitting else 0)
            return fitting

    @contextmanager
    def _counter(self) -> Iterator["_Counter"]:
        """For this process alone, as long as it is open."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "bytes", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Counter(descriptor, self.folder / "images")
        finally:
            os.close(descriptor)


class _Counter:
    """A number in a file that is open: what `images` takes; counted where it is not known."""

    def __init__(self, descriptor: int, images: Path) -> None:
        self._descriptor = descriptor
        text = os.pread(descriptor, 32, 0)
        known = images.is_dir() and text.strip().isdigit()
        # made here, where all wait: a folder that is missing later was removed by the user
        images.mkdir(exist_ok=True)
        self.bytes = int(text) if known else sum(map(_bytes_below, images.iterdir()))

    def add(self, size: int) -> None:
        self.bytes = max(0, self.bytes + size)
        os.pwrite(self._descriptor, f"{self.bytes:<32d}".encode(), 0)


DEFAULT_CACHE = ImageCache()


def image_cache(folder: Path | None, gigabytes: float) -> ImageCache:
    """As the options of a command say; UserError for a size that is none, or no folder."""
    if not 0 <= gigabytes < 1e9:
        raise UserError(f"--cache-gb {gigabytes:g}: give 0, to keep nothing, or more")
    folder = folder or DEFAULT_FOLDER
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--cache-dir {folder} is no folder")
    return ImageCache(folder.absolute(), int(gigabytes * 1e9))


def _written(path: Path, content: bytes) -> bool:
    """Write it whole; False where that cannot be now, for a reason of NOT_KEPT."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno not in NOT_KEPT:
            raise
        return False
    return True


def _check(image: bytes) -> bytes:
    return zlib.crc32(image).to_bytes(CHECK, "little")


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # a temporary file, renamed since
            total += on_disk(file.stat().st_size)
    return total


def on_disk(size: Size) -> Size:
    """What a file of `size` bytes takes."""
    return -(-size // BLOCK) * BLOCK
