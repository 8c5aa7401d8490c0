"""Noise per image, drawn on the CPU: an image's noise depends on its own seed and nothing else."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np

SEED_BITS = 53  # seeds fit a JSON number, and a float64, without loss


class NoiseSource(Protocol):
    """Gives the next batch of noise at each call."""

    def __call__(self) -> np.ndarray: ...


class ImageStreams:
    """Standard normal numbers of images, each image's from its own seed alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]

    def normal(self, *shape: int) -> np.ndarray:
        """The next float32[N, *shape]."""
        batch = np.empty((len(self._streams), *shape), dtype=np.float32)
        for row, stream in zip(batch, self._streams, strict=True):
            stream.standard_normal(out=row, dtype=np.float32)
        return batch


def image_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Standard normal float32[N, *shape], one after another; row i comes from seeds[i] alone."""
    streams = ImageStreams(seeds)
    while True:
        yield streams.normal(*shape)


def uniform(seeds: Sequence[int], count: int) -> np.ndarray:
    """float64[N,count] in [0, 1); row i comes from seeds[i] alone."""
    streams = (np.random.Generator(np.random.Philox(key=seed)) for seed in seeds)
    return np.stack([stream.random(count) for stream in streams])


def permutations(seeds: Sequence[int], count: int) -> np.ndarray:
    """int64[N,count], each row an order of 0 to count - 1; row i comes from seeds[i] alone, apart
    from the image's noise."""
    streams = (np.random.Generator(np.random.Philox(key=seed + _ORDERS)) for seed in seeds)
    return np.stack([stream.permutation(count) for stream in streams])


@contextmanager
def ahead_of_need(batches: Iterator[np.ndarray]) -> Iterator[NoiseSource]:
    """Draw the next batch in a thread while the caller computes with this one."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise") as pool:
        pending = [pool.submit(next, batches)]

        def draw() -> np.ndarray:
            pending.append(pool.submit(next, batches))
            return pending.pop(0).result()

        yield draw


def parent_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32[N, *shape] for the parents of images, apart from the images' own."""
    return next(image_noise([~seed & _ALL_ONES for seed in seeds], shape))


_ORDERS = 1 << 64  # seeds plus this: streams of orders alone
_ALL_ONES = (1 << 64) - 1  # ~seed & this: a stream no image seed (53 bits) can be
