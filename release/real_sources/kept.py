"""What takes minutes to find out about a source, kept in the user's cache folder."""

import os
from pathlib import Path

from release.files.commit import sha256_text


def kept_file(kind: str, about: str, suffix: str) -> Path:
    """CACHE/synthetic-imagenet/KIND/HASH and suffix. about: all that decides what is in it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "synthetic-imagenet" / kind / f"{sha256_text(about)}{suffix}"
