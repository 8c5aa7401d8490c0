"""Writing files so that they are either there whole or not there at all."""

import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.errors import UserError
from generation.storage import ReleasePath, reaching

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

TEMPORARY = ".tmp"
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
    with _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_stream_atomically(
    path: ReleasePath, write: Callable[["pa.NativeFile"], None]
) -> tuple[int, str]:
    """As write_atomically, what `write` puts into a stream; its length and SHA-256.

    In a folder it is hashed while the disk takes it in, and is never in memory as a whole.
    """
    import pyarrow as pa

    if not isinstance(path, Path):
        sink = pa.BufferOutputStream()
        write(sink)
        content = memoryview(sink.getvalue())
        write_atomically(path, content)
        return len(content), sha256_bytes(content)
    with _replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as stream:
            write(stream)
        with temporary.open("rb") as file, ThreadPoolExecutor(1) as beside:
            digest = beside.submit(sha256_file, temporary)
            os.fsync(file.fileno())
        return temporary.stat().st_size, digest.result()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A hidden temporary file beside `path` that takes its place in the end, if nothing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


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


def remove_temporaries_of(*paths: Path | None) -> None:
    """Delete what killed processes were writing to these files, and to no others beside them."""
    for path in filter(None, paths):
        for temporary in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
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
    """One text for one value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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
