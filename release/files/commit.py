"""Writing files so that they are either there whole or not there at all."""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.errors import UserError
from release.files.storage import ReleasePath, list_files, reaching

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

Content = bytes | memoryview | mmap  # of a whole file
TEMPORARY = ".tmp"
# .NAME.tmp or .NAME.HEX.tmp: what stood to become NAME
LEFTOVER = re.compile(r"\.(?P<name>.+?\.[^.]+?)(\.[0-9a-f]{32})?\.tmp")
PIECE = 8 << 20  # bytes read at a time


def write_atomically(path: ReleasePath, content: bytes | memoryview) -> None:
    """In a folder: hidden temporary file, fsync, rename, fsync of the folder. Behind a URL: a PUT.

    When it returns the content is durable; until then readers see what was there before.
    """
    if not isinstance(path, Path):
        try:
            with reaching(path):
                path.fs.pipe_file(path.path, bytes(content))  # all that stores take
        except FileNotFoundError as error:
            raise UserError(f"{path} cannot be written: {error}") from None
        return
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@dataclass
class Stream:
    """A file that is being written. bytes and sha256: once it is whole."""

    sink: "pa.NativeFile"
    bytes: int = 0
    sha256: str = ""


def write_stream_atomically(
    path: ReleasePath,
    write: Callable[["pa.NativeFile"], None],
    look: Callable[[Content], None] | None = None,
) -> tuple[int, str]:
    """As write_atomically, what `write` puts into a stream; its length and SHA-256.

    look: as stream_atomically has it.
    """
    with stream_atomically(path, look) as stream:
        write(stream.sink)
    return stream.bytes, stream.sha256


@contextmanager
def stream_atomically(
    path: ReleasePath, look: Callable[[Content], None] | None = None
) -> Iterator[Stream]:
    """As write_atomically, what the block puts into the stream; nothing if it raises.

    In a folder it is hashed while the disk takes it in, and is never in memory as a whole. look:
    gets the whole content before it stands at `path`.
    """
    import pyarrow as pa

    if not isinstance(path, Path):
        stream = Stream(pa.BufferOutputStream())
        yield stream
        content = memoryview(stream.sink.getvalue())
        if look is not None:
            look(content)
        write_atomically(path, content)
        stream.bytes, stream.sha256 = len(content), sha256_bytes(content)
        return
    with replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink:
            stream = Stream(sink)
            yield stream
        with temporary.open("rb") as file, ThreadPoolExecutor(1) as beside:
            digest = beside.submit(sha256_file, temporary)
            if look is not None:
                look(mmap(file.fileno(), 0, access=ACCESS_READ))
            os.fsync(file.fileno())
        stream.bytes, stream.sha256 = temporary.stat().st_size, digest.result()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden temporary file beside `path` that takes its place in the end, if nothing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _own_temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)
    sync_folder(path.parent)


def _own_temporary(path: Path) -> tuple[Path, int]:
    """A temporary file that no other process writes, and a descriptor that says so while open.

    The name follows from `path`, so that the next writer takes up what a killed one left there;
    a lock tells the killed from the living, beside whom it takes a name of its own. It also takes
    one beside a link of that name, which may lead anywhere.
    """
    temporary = path.parent / f".{path.name}{TEMPORARY}"
    lock = None
    try:
        lock = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), temporary.lstat()):
            return temporary, lock
    except OSError:  # another holds it, or has renamed it since; or a file system without locks
        pass
    if lock is not None:
        os.close(lock)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}"
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One process of this machine at a time: the others wait, and find what it has made.

    The folder itself is locked, so nothing is left in it; a killed process holds nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def create_exclusively(path: ReleasePath, content: bytes) -> bool:
    """Write a file that must not be there yet; False if it is. Of many at once, one succeeds.

    So says POSIX of a folder, NFS included, and S3, GCS and Azure of a conditional PUT.
    """
    try:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
            return True
        with reaching(path):
            return _create_object(path, content)
    except FileExistsError:
        return False
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be written: {error}") from None


def _create_object(path: "UPath", content: bytes) -> bool:
    try:
        path.fs.pipe_file(path.path, content, mode="create")
    except OSError:  # the refusal of a conditional PUT has several names
        if path.fs.exists(path.path):
            return False
        raise
    return True


def overwrite(path: ReleasePath, content: bytes) -> None:
    """Give a small file another content in place: no temporary file, no more room on the disk.

    FileNotFoundError for a folder's file that is not there.
    """
    if isinstance(path, Path):
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
        return
    with reaching(path):
        path.fs.pipe_file(path.path, content)


def delete_file(path: ReleasePath) -> None:
    """Delete the file if it is there."""
    with reaching(path), suppress(FileNotFoundError):
        path.unlink()


def remove_temporaries(folder: ReleasePath) -> None:
    """Delete what killed processes were writing below `folder`; a URL has no such files."""
    if not isinstance(folder, Path):
        return
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def foreign_files(folder: ReleasePath, own_folder: str) -> list[str]:
    """What is in `folder` and cannot be left over from a killed process of ours.

    Ours are temporary files of write_atomically, and what lies in `own_folder`: a folder that holds
    nothing else is as good as empty.
    """
    return [
        name
        for name in list_files(folder)
        if not name.startswith(f"{own_folder}/") and not LEFTOVER.fullmatch(name.split("/")[-1])
    ]


def remove_temporaries_of(*paths: Path | None) -> None:
    """Delete what killed processes were writing to these files, and to no others beside them."""
    for path in filter(None, paths):
        for temporary in path.parent.glob(f".{glob.escape(path.name)}*{TEMPORARY}"):
            found = LEFTOVER.fullmatch(temporary.name)
            if found and found["name"] == path.name:
                temporary.unlink(missing_ok=True)


def delete_folder(folder: ReleasePath) -> None:
    """Delete the folder and all below it, if there is one."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with reaching(folder), suppress(FileNotFoundError):
        folder.fs.rm(folder.path, recursive=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces. UserError for a number that is not finite."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError:
        raise UserError(f"a number is not finite, so JSON cannot hold it: {value!s:.200}") from None


def sha256_text(text: str) -> str:
    """Hex digest of the text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_bytes(content: bytes | memoryview) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: ReleasePath) -> str:
    """Hex digest of the file's content, read in pieces."""
    digest = hashlib.sha256()
    with reaching(path), path.open("rb") as file:
        while block := file.read(PIECE):
            digest.update(block)
    return digest.hexdigest()
