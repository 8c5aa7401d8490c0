"""What takes minutes to find out about a source, kept in the user's cache folder."""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from release.files.commit import alone_in, sha256_text
from release.files.hash_named import find_checked, write_checked

NAME, SUFFIX = "table", ".parquet"


def kept_table(kind: str, about: str, make: Callable[[], pa.Table]) -> pa.Table:
    """What `make` gives, made once for all processes of this machine: the others wait for it.

    about: all that decides it. It stands in CACHE/synthetic-imagenet/KIND/HASH, unless a value is
    missing. A file that is damaged is made anew. Without a folder to write in nothing is kept.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "synthetic-imagenet" / kind / sha256_text(about)
    with ExitStack() as alone:
        with suppress(OSError):
            alone.enter_context(alone_in(folder))
            path = find_checked(folder, NAME, SUFFIX)
            if path is not None:
                return pq.read_table(path)
        table = make()
        if not any(column.null_count for column in table.columns):
            content = pa.BufferOutputStream()
            pq.write_table(table, content)
            with suppress(OSError):
                write_checked(folder, NAME, SUFFIX, content.getvalue().to_pybytes())
        return table
