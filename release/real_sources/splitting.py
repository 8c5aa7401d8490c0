"""A test split for data that comes without one: a seeded share of each class, by content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.commit import canonical_json
from release.real_sources.kept import kept_table
from release.real_sources.source import RealSource, RealSplit, cannot_be_read, first_few

TRAIN, TEST = "train", "test"
DIGEST = "digest"
MANY = 20_000  # images that take long enough to read that it is shown


@dataclass(frozen=True)
class PartOfSplit:
    """Some `rows` of a split, under the keys they have there."""

    whole: RealSplit
    rows: Sequence[int]

    @cached_property
    def labels(self) -> Sequence[int]:
        return [int(self.whole.labels[row]) for row in self.rows]

    def key(self, i: int) -> str:
        return self.whole.key(self.rows[i])

    def version(self, i: int) -> str:
        return self.whole.version(self.rows[i])

    def read(self, i: int) -> bytes:
        return self.whole.read(self.rows[i])


def with_test_split(source: RealSource, share: float, seed: int) -> RealSource:
    """`source` with that share of each class of train as its test split, one image at least.

    By a hash of the seed and the image's bytes, so that files which are copies of each other never
    stand on both sides. Every image is read; again only on another machine, or when one has
    changed. UserError if there is another split already, and for a class that cannot be divided.
    """
    if set(source.splits) != {TRAIN}:
        raise UserError(
            f"--test-share: {source.name} has the splits {', '.join(source.splits)} already: leave "
            "it out, or import a folder of the training images alone"
        )
    data = source.splits[TRAIN]
    labels = np.asarray(data.labels, np.int64)
    digests = _digests(source.name, data, seed)
    chosen = np.isin(digests, _lowest(digests, labels, share))
    if few := [label for label in np.unique(labels) if chosen[labels == label].all()]:
        raise _too_few(source, few, len(set(digests[labels == few[0]].tolist())))
    parts = {
        TRAIN: PartOfSplit(data, np.flatnonzero(~chosen).tolist()),
        TEST: PartOfSplit(data, np.flatnonzero(chosen).tolist()),
    }
    remark = f"{chosen.sum():,} of {len(labels):,} images are its test split, {rule(share, seed)}"
    return replace(
        source, splits=parts, test_rule=rule(share, seed), remarks=(*source.remarks, remark)
    )


def _too_few(source: RealSource, labels: Sequence[int], different: int) -> UserError:
    """For the classes that cannot be divided. different: images of the first of them."""
    names = first_few([source.classes[label].name for label in labels])
    why = "to train on some and test on others: add images, or take the folder away"
    if len(labels) > 1:
        return UserError(f"--test-share: classes {names} have too few different images {why}")
    images = "image" if different == 1 else "images"
    return UserError(
        f"--test-share: class {names} has {different} different {images}, too few {why}"
    )


def rule(share: float, seed: int) -> str:
    """The rule, as the manifest states it."""
    return (
        f"of each class, the share {share:g} with the lowest SHA-256 of '{seed} ' and the image's "
        "bytes; copies go together"
    )


def _lowest(digests: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """The digests of each class's share."""
    chosen = []
    for label in np.unique(labels):
        own = np.sort(digests[labels == label])
        chosen.append(own[: max(1, round(share * len(own)))])
    return np.concatenate(chosen)


def _digests(name: str, data: RealSplit, seed: int) -> np.ndarray:
    """Of each image, of one that is not there by its key: the import names it."""
    rows = range(len(data.labels))
    about = canonical_json([seed, [[data.key(row), data.version(row)] for row in rows]])
    table = kept_table("test-splits", about, lambda: _read_digests(name, data, seed))
    found = zip(rows, table[DIGEST].to_pylist(), strict=True)
    return np.array([d if d is not None else _digest(data.key(r).encode(), seed) for r, d in found])


def _read_digests(name: str, data: RealSplit, seed: int) -> pa.Table:
    """Of each image, null where there is nothing to read."""
    digests: list[bytes | None] = []
    count = len(data.labels)
    few = count < MANY
    with progress_bar(count, f"{name}, its test split", "images", quiet=few) as advance:
        for row in range(count):
            content = _content(data, row)
            digests.append(None if content is None else _digest(content, seed))
            advance(1)
    return pa.table({DIGEST: pa.array(digests, pa.binary())})


def _content(data: RealSplit, row: int) -> bytes | None:
    """None where there is nothing to read."""
    try:
        return data.read(row)
    except OSError as error:
        if cannot_be_read(error) is None:
            raise UserError(
                f"--test-share: {data.key(row)} cannot be read now ({error.strerror}): run again"
            ) from None
        return None
    except UserError:
        return None


def _digest(content: bytes, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} ".encode() + content).hexdigest().encode()
