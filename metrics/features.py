"""One pass over a release's images: every metric is computed from what it yields."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from builder.manifest import ShardRecord
from generation.errors import UserError
from generation.image_sets import decode
from generation.shard_files import iterate_shard
from generation.storage import ReleasePath
from metrics.extractors import Extractor, Features, concatenate
from metrics.feature_cache import FeatureCache
from metrics.image_lists import ImageList, ImageSet, read_image_list
from metrics.states import sampling_keys

CHUNK_ROWS = 2048  # images whose features are held before they go to the cache
BLOCK_IMAGES = 2048  # so many, or a shard that has more, make one state: each takes its own time


@dataclass(frozen=True)
class FeatureBlock:
    """Images of a split that follow each other in its plan, of one shard or several.

    first: position of the first one in the split; keys uint64[N]: see states.sampling_keys;
    labels int64[N]; features, logits, spatial float32[N,·].
    """

    first: int
    keys: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    logits: np.ndarray
    spatial: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def iterate_features(
    image_set: ImageSet,
    extractor: Extractor,
    cache: Path,
    on_images: Callable[[int], None] = lambda _: None,
) -> Iterator[FeatureBlock]:
    """In plan order; only images that are not in the cache are decoded.

    Where blocks end follows from the plan alone. on_images: called with the number of images done
    since the last call.
    """
    feature_cache = FeatureCache(cache, extractor.protocol)
    first, together = 0, list[ImageList]()
    for shard in image_set.shards():
        images = read_image_list(image_set, shard, cache)
        if not len(images):
            continue
        new = extract_shard(image_set, shard, extractor, feature_cache, on_images)
        on_images(len(images) - new)
        together.append(images)
        if sum(map(len, together)) >= BLOCK_IMAGES:
            yield (block := _read_block(first, together, feature_cache))
            first, together = first + len(block), []
    if together:
        yield _read_block(first, together, feature_cache)


def _read_block(first: int, lists: Sequence[ImageList], cache: FeatureCache) -> FeatureBlock:
    found = cache.read([image for images in lists for image in images.sha256])
    return FeatureBlock(
        first,
        sampling_keys([image_id for images in lists for image_id in images.image_ids]),
        np.concatenate([images.labels for images in lists]),
        found.features,
        found.logits,
        found.spatial,
    )


def extract_shard(
    image_set: ImageSet,
    shard: ShardRecord,
    extractor: Extractor,
    cache: FeatureCache,
    on_images: Callable[[int], None] = lambda _: None,
) -> int:
    """Put the features of the shard's images into the cache; how many were not there."""
    images = read_image_list(image_set, shard, cache.root)
    new = np.flatnonzero(cache.missing(images.sha256))
    hashes: list[bytes] = []
    parts: list[Features] = []
    batches = np.split(new, range(extractor.batch, len(new), extractor.batch)) if len(new) else []
    decoded = _decode_ahead(image_set.release / shard.path, [images.rows[b] for b in batches])
    for batch, found in zip(batches, _extract_side_by_side(extractor, decoded), strict=True):
        parts.append(found)
        hashes += [images.sha256[i] for i in batch]
        on_images(len(batch))
        if len(hashes) >= CHUNK_ROWS or batch is batches[-1]:
            cache.write(hashes, concatenate(parts))
            hashes, parts = [], []
    return len(new)


def _extract_side_by_side(
    extractor: Extractor, batches: Iterator[np.ndarray]
) -> Iterator[Features]:
    """In order. Each of torch's threads has a batch of its own: they wait for each other less
    than within one, and a feature's bits are those of one thread."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or extractor.device.type != "cpu":
        yield from map(extractor.extract, batches)
        return
    waiting: deque[Future[Features]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for batch in batches:
                waiting.append(pool.submit(extractor.extract, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def _decode_ahead(path: ReleasePath, batches: list[np.ndarray]) -> Iterator[np.ndarray]:
    """uint8[N,H,W,3] of each batch of rows (ascending); one batch is decoded ahead of need."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: list[list[Future[np.ndarray]]] = []
        for encoded in _read_batches(path, batches):
            waiting.append([pool.submit(decode, data) for data in encoded])
            if len(waiting) > 1:
                yield _stack(path, waiting.pop(0))
        while waiting:
            yield _stack(path, waiting.pop(0))


def _read_batches(path: ReleasePath, batches: list[np.ndarray]) -> Iterator[list[bytes]]:
    """Encoded images of each batch of rows, reading the file once from front to back."""
    if not batches:
        return
    reader = iterate_shard(path, ["image"], 1024)
    start, block = 0, next(reader)
    for rows in batches:
        data: list[bytes] = []
        while len(data) < len(rows):
            inside = rows[(rows >= start) & (rows < start + len(block))] - start
            data += block.column("image").field("bytes").take(pa.array(inside)).to_pylist()
            if len(data) < len(rows):
                start, block = start + len(block), next(reader)
        yield data


def _stack(path: ReleasePath, images: list[Future[np.ndarray]]) -> np.ndarray:
    pixels = [image.result() for image in images]
    if len({p.shape for p in pixels}) > 1:
        raise UserError(
            f"{path} holds images of several sizes; score a fixed-resolution configuration"
        )
    return np.stack(pixels)
