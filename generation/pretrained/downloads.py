"""Files of public models that are not on the Hub: fetched once into a cache."""

import os
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.commit import replacing

PIECE = 1 << 20
TIMEOUT_S = 30
OFFLINE = ("1", "true", "yes", "on")  # as huggingface_hub reads it: one switch for all models


def cache_folder(kind: str) -> Path:
    """CACHE/synthetic-imagenet/KIND, CACHE being $XDG_CACHE_HOME or ~/.cache.

    Several users may share it: what is written there has the rights that their umask gives.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "synthetic-imagenet" / kind


def model_cache() -> Path:
    """The cache of files of public models."""
    return cache_folder("models")


def download(address: str, target: Path) -> None:
    """Fetch `address` to `target` unless it is there; it appears by rename, complete.

    Raises UserError, one line, if the network does not give it.
    """
    if target.is_file():
        return
    elsewhere = (
        f"put the file at {target} yourself, name a local folder as the stage's checkpoint, or use "
        "`--recipe fashion-mnist`, which needs no download"
    )
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in OFFLINE:
        raise UserError(f"{address} may not be fetched, HF_HUB_OFFLINE is set: {elsewhere}")
    try:
        with (
            replacing(target) as temporary,
            urlopen(address, timeout=TIMEOUT_S) as response,
            temporary.open("wb") as file,
        ):
            size = int(response.headers.get("Content-Length", 0))
            with progress_bar(size, target.name, "bytes", quiet=False) as advance:
                while piece := response.read(PIECE):
                    file.write(piece)
                    advance(len(piece))
            if size and file.tell() != size:
                raise OSError("the connection ended early")
    except OSError as error:  # URLError and time-outs are ones
        reason = error.reason if isinstance(error, URLError) else error
        raise UserError(f"{address} cannot be fetched ({reason}): {elsewhere}") from None
