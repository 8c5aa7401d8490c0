"""What every metric's state is: sums that add up, one a shard, reduced in the order of the plan.

Adding floating-point numbers in another order changes the last bits, so a state is always built
per shard and merged in plan order: the same bits at any number of workers.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Protocol, Self, TypeVar

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
K = TypeVar("K", int, str)


def merge_all(states: Iterable[S]) -> S:
    """Left to right; `states` must not be empty."""
    return reduce(lambda a, b: a.merge(b), states)


def merge_groups(first: Mapping[K, S], second: Mapping[K, S]) -> dict[K, S]:
    """Merge group by group; keys sorted."""
    merged = dict(first)
    for key, state in second.items():
        merged[key] = merged[key].merge(state) if key in merged else state
    return {key: merged[key] for key in sorted(merged)}


def sampling_keys(image_ids: Sequence[str]) -> np.ndarray:
    """uint64[N]: pseudo-random, fixed by the image's id alone, so that adding images moves none."""
    digests = (hashlib.sha256(image_id.encode()).digest()[:8] for image_id in image_ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def buckets_of(keys: np.ndarray) -> np.ndarray:
    """int64[N], 0 ≤ bucket < BUCKETS: the groups that a jackknife leaves out in turn."""
    return (keys % np.uint64(BUCKETS)).astype(np.int64)
