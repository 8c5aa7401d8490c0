"""How far a training on a worker is: NAME.share beside its result, for the command that waits.

Its first process writes the share of its images seen, up to 1, with its first images and every few
seconds, and removes the file in the end. Results lie where the command and all workers read and
write.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TOLD_SECONDS = 5.0  # between two writings


def share_file(out: Path) -> Path:
    """Where the training whose result is `out` tells its share."""
    return out.with_suffix(".share")


def share_done(out: Path) -> float:
    """As last told; 0 where nothing is, or nothing that can be read."""
    try:
        return min(1.0, max(0.0, float(share_file(out).read_text())))
    except (OSError, ValueError):
        return 0.0


@contextmanager
def telling_share(out: Path, total: int) -> Iterator[Callable[[int], None]]:
    """For `total` images; yields what is called with the number of those just seen."""
    seen, told = 0, -math.inf

    def advance(images: int) -> None:
        nonlocal seen, told
        seen += images
        now = time.monotonic()
        if seen and now - told >= TOLD_SECONDS:
            told = now
            with suppress(OSError):  # a full disk ends no training here
                share_file(out).write_text(str(seen / total))

    try:
        yield advance
    finally:
        forget_share(out)


def forget_share(out: Path) -> None:
    """No training tells it now."""
    with suppress(OSError):
        share_file(out).unlink(missing_ok=True)
