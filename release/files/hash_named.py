"""Files of the cache that are noticed when they change: each has its content's hash in its name.

NAME.SHA256.SUFFIX. A file that does not fit its name is deleted, so that what it held is made anew.
"""

from functools import lru_cache
from pathlib import Path

from release.files.commit import sha256_bytes, sha256_file, write_atomically


def write_checked(folder: Path, name: str, suffix: str, content: bytes) -> Path:
    """Where it stands."""
    path = folder / f"{name}.{sha256_bytes(content)}{suffix}"
    write_atomically(path, content)
    return path


def find_checked(folder: Path, name: str, suffix: str) -> Path | None:
    """The file of that name if it is there and whole."""
    for path in sorted(folder.glob(f"{name}.*{suffix}")):
        if is_whole(path):
            return path
        path.unlink(missing_ok=True)
    return None


def is_whole(path: Path) -> bool:
    """Whether the content fits the name; read once as long as the file is not touched."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return False
    return _is_whole(path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@lru_cache(maxsize=1 << 16)
def _is_whole(path: Path, *_facts: int) -> bool:
    return sha256_file(path) == path.name.split(".")[-2]
