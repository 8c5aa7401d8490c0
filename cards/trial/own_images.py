"""A look at one's own images before they are imported: their splits, sizes and colour."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cards.trial.plan import Asked
from release.errors import UserError
from release.files.commit import sha256_text
from release.images.decoding import decode_rgb
from release.real_sources.opening import open_source
from release.real_sources.source import SPLITS, RealSource, SourceName

TESTS = ("test", "validation")  # the split that is tested on: the first of these that there is
LEAST_CLASSES = 2
LOOKED_AT = 64  # images, for their size and colour


@dataclass(frozen=True)
class Look:
    """At the images before they are imported. undivided: no split is to test on.

    side: the median of the shorter ones' of some images, in px. identity: of which images there are
    in which version.
    """

    undivided: bool
    side: int
    colour: bool
    identity: str


def look_at(asked: Asked) -> Look:
    """UserError for images that cannot be imported, divided, or told apart."""
    source, undivided = _source(asked)
    if len(source.classes) < LEAST_CLASSES:
        raise UserError(f"{asked.images} has one class: a classifier tells at least two apart")
    train = source.splits["train"]
    sides, colour = [], False
    rows = range(0, len(train.labels), max(1, len(train.labels) // LOOKED_AT))
    for row in rows:
        with suppress(UserError, OSError):  # the import names those that cannot be read
            pixels = np.asarray(decode_rgb(train.read(row)))
            sides.append(min(pixels.shape[:2]))
            colour = colour or bool(np.any(pixels != pixels[..., :1]))
    if not sides:
        raise UserError(
            f"{asked.images}: none of {len(rows)} images that were looked at can be read"
        )
    return Look(undivided, int(np.median(sides)), colour, _identity(source))


def _identity(source: RealSource) -> str:
    """A hash of all keys and versions."""
    found = sorted(
        f"{data.labels[i]} {data.key(i)} {data.version(i)}"
        for data in source.splits.values()
        for i in range(len(data.labels))
    )
    return sha256_text("\n".join(found))


def _source(asked: Asked) -> tuple[RealSource, bool]:
    """The images, and whether they came without a split to test on."""
    divided = SourceName(
        asked.images, test_share=f"{asked.test_share:g}", split_seed=str(asked.split_seed)
    )
    try:
        source = open_source(str(SourceName(asked.images)))
    except UserError:
        if not Path(asked.images).is_dir():
            raise
        return open_source(str(divided)), True  # CLASS/image may do; else this says what is wrong
    if "train" not in source.splits:
        classes = (
            "" if {*source.splits} & {*SPLITS} else "; if the folders in it are classes, name it"
        )
        raise UserError(
            f"{asked.images} has no split train, only {', '.join(source.splits)}{classes}"
        )
    if not set(source.splits) & set(TESTS):
        return open_source(str(divided)), True
    return source, False
