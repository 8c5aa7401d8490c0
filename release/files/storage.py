"""Where releases live: a folder, or a URL of any file system that fsspec knows.

`release_path` turns what a user typed into a path: pathlib's for a folder, universal_pathlib's for
a URL such as s3://bucket/prefix. Both join in the same way. What is read goes through here, so that
a store that fails ends in one line; release/files/commit.py writes. docs/storage.md has the
guarantees.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from release.errors import UserError, redacted, unknown_name
from release.files.hub import out_of_reach

if TYPE_CHECKING:
    from upath import UPath

ReleasePath: TypeAlias = "Path | UPath"


class StorageError(UserError):
    """The store behind a URL failed: no shard is at fault, and trying again may well help."""


def release_path(text: str) -> ReleasePath:
    """A folder's path, or a URL's.

    UserError for a kind of storage that is unknown or missing, and for an address with a secret.
    """
    protocol, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    require_no_secret(text)
    if protocol == "file":
        return Path(rest)
    import fsspec
    from fsspec.registry import known_implementations
    from upath import UPath

    if protocol not in fsspec.available_protocols():
        raise unknown_name("kind of storage", protocol, fsspec.available_protocols())
    try:
        # What other machines write must be seen at once, so listings are not kept.
        path = UPath(text, use_listings_cache=False)
        path.fs  # noqa: B018 loads the file system's package
    except ImportError:
        needs = known_implementations.get(protocol, {}).get("err", "")
        extra = ": pip install s3fs" if protocol in ("s3", "s3a") else f": {needs}"
        raise UserError(f"{text} needs a package that is not installed{extra}") from None
    if protocol == "hf" and (why := out_of_reach()):
        raise StorageError(f"{text} cannot be reached ({why})")
    return path


def require_no_secret(text: str) -> None:
    """UserError for an address with a password or token in it.

    Addresses are recorded in manifests and results, and shown.
    """
    if redacted(text) != text:
        raise UserError(
            f"{redacted(text)}: leave the secret out of the address, which is recorded and shown; "
            "credentials come from the environment, see docs/storage.md"
        )


def absolute_if_folder(name: str) -> str:
    """NAME or NAME:PART with NAME as an absolute path if there is such a folder here.

    A process in another working directory then means the same. What is no folder, a data set on the
    Hub say, is left as it is.
    """
    if Path(name).is_dir():
        return str(Path(name).absolute())
    folder, colon, part = name.partition(":")
    return f"{Path(folder).absolute()}:{part}" if colon and Path(folder).is_dir() else name


def absolute_if_file(name: str) -> str:
    """NAME as an absolute path if there is such a file here, else as it is."""
    return str(Path(name).absolute()) if Path(name).is_file() else name


def split_release(text: str) -> tuple[str, list[str]]:
    """RELEASE[:PART…] to the release, which may be a URL or a folder with : in its name, and parts.

    Of several folders that may be meant it is the one of the shortest name.
    """
    protocol, separator, rest = text.rpartition("://")
    pieces = rest.split(":")
    count = 1
    if not separator:
        found = (n for n in range(1, len(pieces) + 1) if is_folder(":".join(pieces[:n])))
        count = next(found, 1)
    return protocol + separator + ":".join(pieces[:count]), pieces[count:]


def is_folder(name: str) -> bool:
    """Whether there is such a folder; what can be no path at all is none."""
    try:
        return bool(name) and Path(name).is_dir()
    except (OSError, ValueError):
        return False


def release_name(release: ReleasePath) -> str:
    """The folder's name; a bucket's where the release is all of it."""
    if isinstance(release, Path):
        return release.resolve().name
    return release.name or release.path.strip("/")


@contextmanager
def reaching(path: ReleasePath) -> Iterator[None]:
    """Turn whatever a store raises into a StorageError of one line; folders raise as ever.

    FileNotFoundError and FileExistsError are answers, not failures, and pass.
    """
    try:
        yield
    except (UserError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:  # each store's client has exceptions of its own
        if isinstance(path, Path):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(
            f"{path}: the store failed ({reason}); what is finished is kept: rerun to go on"
        ) from None


def read_bytes(path: ReleasePath) -> bytes:
    """The file's content; FileNotFoundError if there is none."""
    with reaching(path):
        if isinstance(path, Path):
            return path.read_bytes()
        # At one stroke: an opened object that is replaced meanwhile cannot be read on.
        content: bytes = path.fs.cat_file(path.path)
        return content


def read_text(path: ReleasePath) -> str:
    """The file's content as UTF-8; FileNotFoundError if there is none, ValueError for other bytes.

    Damaged bytes are thus what damaged JSON is: read and parse in one `try`.
    """
    return read_bytes(path).decode()


def exists(path: ReleasePath) -> bool:
    """Whether there is such a file."""
    with reaching(path):
        return path.is_file()


def file_size(path: ReleasePath) -> int:
    """Bytes; FileNotFoundError if there is none."""
    with reaching(path):
        if isinstance(path, Path):
            return path.stat().st_size
        return int(path.fs.size(path.path))


def list_files(folder: ReleasePath) -> dict[str, int]:
    """Size in bytes of every file below `folder`, by its path within; empty if there is none.

    An object store is asked once for all of them, a thousand a request.
    """
    with reaching(folder):
        if isinstance(folder, Path):
            return _walk(folder)
        root = folder.path.rstrip("/")
        try:
            found = folder.fs.find(root, detail=True)
        except FileNotFoundError:  # a bucket that does not exist
            return {}
        return {name[len(root) :].lstrip("/"): int(info["size"]) for name, info in found.items()}


def _walk(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a temporary file, renamed since
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def read_files(folder: ReleasePath, names: Iterable[str]) -> dict[str, bytes]:
    """Content of those of `names` in `folder` that exist; an object store sends many at once."""
    if isinstance(folder, Path):
        return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    paths = {(folder / name).path: name for name in names}
    found = {}
    with reaching(folder):
        contents = folder.fs.cat(list(paths), on_error="return") if paths else {}
        for path, content in contents.items():
            if isinstance(content, bytes):
                found[paths[path]] = content
            elif not isinstance(content, FileNotFoundError):
                raise content
    return found
