"""What every metric's state is: sums that add up, one a block of images, reduced in plan order.

Adding floating-point numbers in another order changes the last bits, so states are built of the
same blocks and merged in the order of the plan: the same bits at any number of workers.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

BUCKETS = 10


class State(Protocol):
    """Sums over `n` images."""

    @property
    def n(self) -> int:
        """Images seen."""
        ...

    def merge(self, other: Self) -> Self:
        """The state of both sets of images."""
        ...


S = TypeVar("S", bound=State)


def merge_all(states: Iterable[S]) -> S:
    """Left to right; `states` must not be empty."""
    return reduce(lambda a, b: a.merge(b), states)


@dataclass(frozen=True)
class Groups(Generic[S]):
    """One state per group of images: a jackknife's bucket, a split, a class. Keys ascend."""

    by_key: dict[int, S]

    @classmethod
    def of(cls, groups: np.ndarray, state_of: Callable[[np.ndarray], S]) -> "Groups[S]":
        """Rows i with the same groups[i] (int64[N]) together; state_of gets bool[N]."""
        return cls({int(group): state_of(groups == group) for group in np.unique(groups)})

    def merge(self, other: "Groups[S]") -> "Groups[S]":
        """Group by group."""
        merged = dict(self.by_key)
        for key, state in other.by_key.items():
            merged[key] = merged[key].merge(state) if key in merged else state
        return Groups({key: merged[key] for key in sorted(merged)})

    @property
    def n(self) -> int:
        """Images in all groups."""
        return sum(state.n for state in self.by_key.values())

    @property
    def total(self) -> S:
        """All groups merged, in the order of their keys."""
        return merge_all(self.by_key.values())

    def without(self, key: int) -> S:
        """All groups but one merged, in the order of their keys."""
        return merge_all(state for other, state in self.by_key.items() if other != key)


def sampling_keys(image_ids: Sequence[str]) -> np.ndarray:
    """uint64[N]: pseudo-random, fixed by the image's id alone, so that adding images moves none."""
    digests = (hashlib.sha256(image_id.encode()).digest()[:8] for image_id in image_ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def buckets_of(keys: np.ndarray) -> np.ndarray:
    """int64[N], 0 ≤ bucket < BUCKETS: the groups that a jackknife leaves out in turn."""
    return (keys % np.uint64(BUCKETS)).astype(np.int64)
