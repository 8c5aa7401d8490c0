"""One pass over a release's images: every metric is computed from what it yields."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from metrics.features.extractors import Extractor, Features, concatenate
from metrics.features.feature_cache import FeatureCache
from metrics.features.image_lists import ImageList, ImageSet, is_listed, read_image_list
from metrics.features.mergeable import sampling_keys
from release.errors import UserError
from release.files.storage import ReleasePath
from release.layout.byte_ranges import on_this_machine
from release.layout.image_sets import decode, images_sha256, pixels_sha256
from release.layout.manifest import ShardRecord
from release.layout.shard_files import iterate_shard, readable

_Decoding = list[tuple[str, Future[np.ndarray]]]  # image ids and their pixels
CHUNK_ROWS = 2048  # images whose features are held before they go to the cache
BLOCK_IMAGES = 2048  # so many, or a shard that has more, make one state: each takes its own time


@dataclass(frozen=True)
class FeatureBlock:
    """Images of a split that follow each other in its plan, of one shard or several.

    keys uint64[N]: see mergeable.sampling_keys; labels int64[N]; features, logits, spatial
    float32[N,·], all finite.
    """

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
    together = list[ImageList]()
    for shard in image_set.shards():
        images = read_image_list(image_set, shard, cache)
        if not len(images):
            continue
        new = extract_shard(image_set, shard, extractor, feature_cache, on_images)
        on_images(len(images) - new)
        together.append(images)
        if sum(map(len, together)) >= BLOCK_IMAGES:
            yield _read_block(together, feature_cache)
            together = []
    if together:
        yield _read_block(together, feature_cache)


def _read_block(lists: Sequence[ImageList], cache: FeatureCache) -> FeatureBlock:
    found = cache.read([image for images in lists for image in images.sha256])
    return FeatureBlock(
        sampling_keys([image_id for images in lists for image_id in images.image_ids]),
        np.concatenate([images.labels for images in lists]),
        found.features,
        found.logits,
        found.spatial,
    )


@dataclass(frozen=True)
class PixelBlock:
    """Images that follow each other in a split's plan, of one shard.

    keys uint64[N]: see mergeable.sampling_keys; labels int64[N]; pixels uint8[N,H,W,3].
    """

    keys: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray


def iterate_pixels(image_set: ImageSet, cache: Path, batch: int) -> Iterator[PixelBlock]:
    """Every image decoded, at most `batch` at a time, in plan order; UserError as for features."""
    for shard in image_set.shards():
        with on_this_machine(image_set.release, shard.path, shard.sha256) as file:
            images = read_image_list(image_set, shard, cache, file)
            rows = np.arange(len(images))
            batches = np.split(rows, range(batch, len(rows), batch)) if len(rows) else []
            path = image_set.release / shard.path
            decoded = _decode_ahead(path, file, images, batches)
            for own, pixels in zip(batches, decoded, strict=True):
                keys = sampling_keys([images.image_ids[i] for i in own])
                yield PixelBlock(keys, images.labels[own], pixels)


def split_identity(image_set: ImageSet, extractor: Extractor, cache: Path) -> str:
    """images_sha256 of a split: identity of its images by their pixels and classes."""
    features = FeatureCache(cache, extractor.protocol)
    classes = image_set.manifest.classes
    pixels: list[bytes] = []
    class_ids: list[str] = []
    for shard in image_set.shards():
        images = read_image_list(image_set, shard, cache)
        extract_shard(image_set, shard, extractor, features)  # if they were lost
        pixels += features.pixels(images.sha256)
        class_ids += [classes[label].wnid for label in images.labels]
    return images_sha256(pixels, class_ids)


def extract_shard(
    image_set: ImageSet,
    shard: ShardRecord,
    extractor: Extractor,
    cache: FeatureCache,
    on_images: Callable[[int], None] = lambda _: None,
) -> int:
    """Put the features of the shard's images into the cache; how many were not there.

    UserError, naming the image, for one that cannot be decoded or whose features are not finite,
    and for a file that is not the one that the manifest lists. A file behind a URL is copied to
    this machine for as long as it is read.
    """
    if is_listed(image_set, shard, cache.root):
        images = read_image_list(image_set, shard, cache.root)
        if not cache.missing(images.sha256).any():
            return 0
    with on_this_machine(image_set.release, shard.path, shard.sha256) as file:
        images = read_image_list(image_set, shard, cache.root, file)
        new = np.flatnonzero(cache.missing(images.sha256))
        return _extract(
            image_set.release / shard.path, file, images, new, extractor, cache, on_images
        )


def _extract(
    path: ReleasePath,
    file: Path,
    images: ImageList,
    new: np.ndarray,
    extractor: Extractor,
    cache: FeatureCache,
    on_images: Callable[[int], None],
) -> int:
    """Of the images `new` in `file`, which is the one at `path`."""
    if not len(new):
        return 0
    batches = np.split(new, range(extractor.batch, len(new), extractor.batch))
    done: list[_Extracted] = []
    for batch, found in zip(
        batches, _extract_batches(path, file, images, batches, extractor), strict=True
    ):
        done.append(found)
        on_images(len(batch))
        if sum(len(part.hashes) for part in done) >= CHUNK_ROWS or batch is batches[-1]:
            _write(cache, done)
            done = []
    return len(new)


@dataclass(frozen=True)
class _Extracted:
    """A batch: SHA-256 of the encoded images and of their pixels, and the features."""

    hashes: list[bytes]
    pixels: list[bytes]
    features: Features


def _write(cache: FeatureCache, parts: list[_Extracted]) -> None:
    cache.write(
        [image for part in parts for image in part.hashes],
        [image for part in parts for image in part.pixels],
        concatenate([part.features for part in parts]),
    )


def _extract_batches(
    path: ReleasePath,
    file: Path,
    images: ImageList,
    batches: list[np.ndarray],
    extractor: Extractor,
) -> Iterator[_Extracted]:
    """In order."""
    pixels: deque[list[bytes]] = deque()

    def decoded() -> Iterator[np.ndarray]:
        for batch in _decode_ahead(path, file, images, batches):
            pixels.append([pixels_sha256(image) for image in batch])
            yield batch

    found = _extract_side_by_side(extractor, decoded())
    for batch, features in zip(batches, found, strict=True):
        _require_finite(path, features, [images.image_ids[i] for i in batch])
        yield _Extracted([images.sha256[i] for i in batch], pixels.popleft(), features)


def _require_finite(path: ReleasePath, found: Features, image_ids: Sequence[str]) -> None:
    """UserError that names the first image with features or logits that are not finite."""
    for name, matrix in vars(found).items():
        for i in np.flatnonzero(~np.isfinite(matrix).all(axis=1)).tolist():
            raise UserError(
                f"{path}, image {image_ids[int(i)]}: the extractor's {name} are not finite, so no "
                "metric is defined; are its weights?"
            )


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


def _decode_ahead(
    path: ReleasePath, file: Path, images: ImageList, batches: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """uint8[N,H,W,3] of each batch of the list (ascending); one batch is decoded ahead of need."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[_Decoding] = deque()
        encoded = _read_batches(path, file, [images.rows[batch] for batch in batches])
        for batch, data in zip(batches, encoded, strict=True):
            names = [images.image_ids[i] for i in batch]
            waiting.append(list(zip(names, [pool.submit(decode, d) for d in data], strict=True)))
            if len(waiting) > 1:
                yield _stack(path, waiting.popleft())
        while waiting:
            yield _stack(path, waiting.popleft())


def _read_batches(
    path: ReleasePath, file: Path, batches: list[np.ndarray]
) -> Iterator[list[bytes]]:
    """Encoded images of each batch of rows, reading the file once from front to back."""
    with readable(path):
        reader = iterate_shard(file, ["image"], 1024)
        start, block = 0, next(reader)
        for rows in batches:
            data: list[bytes] = []
            while len(data) < len(rows):
                inside = rows[(rows >= start) & (rows < start + len(block))] - start
                data += block.column("image").field("bytes").take(pa.array(inside)).to_pylist()
                if len(data) < len(rows):
                    start, block = start + len(block), next(reader)
            yield data


def _stack(path: ReleasePath, images: _Decoding) -> np.ndarray:
    pixels = []
    for image_id, image in images:
        try:
            pixels.append(image.result())
        except UserError as error:
            raise UserError(f"{path}, image {image_id}: {error}") from None
        if pixels[-1].shape != pixels[0].shape:
            raise UserError(
                f"{path} holds images of several sizes, such as {image_id}; "
                "score a fixed-resolution configuration"
            )
    return np.stack(pixels)
