"""Filling the feature cache over Dask: one task a shard that holds images without features.

Workers share the releases and the cache with this process. They return counts, not states: a state
of 2,048 dimensions is twenty times the size of its shard's features. States are built afterwards
from the cache, block by block in plan order, so their bits do not depend on who extracted what.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from builder.cluster.cluster import Cluster, ClusterOptions, open_cluster
from builder.cluster.waiting import completed
from metrics.features.extractors import Extractor, FeatureProtocol, load_extractor
from metrics.features.feature_cache import FeatureCache
from metrics.features.image_lists import ImageSet, is_listed, read_image_list
from metrics.features.release_features import extract_shard
from release.commands.progress import progress_bar
from release.errors import UserError
from release.layout.manifest import ShardRecord

LOOKED_UP_TOGETHER = 256  # shards


@dataclass(frozen=True)
class ShardTask:
    """One shard of an image set, whose manifest names no other; its features go to `cache`."""

    image_set: ImageSet
    cache: Path
    extractor: str
    device: str
    batch: int

    @property
    def key(self) -> str:
        """Name of the task."""
        shard = self.image_set.manifest.shards[0]
        return f"{self.extractor} of {self.image_set.release / shard.path}"

    @property
    def images(self) -> int:
        """Images of the shard."""
        return self.image_set.manifest.shards[0].rows

    def run(self) -> int:
        """Images whose features are new."""
        extractor = _loaded(self.extractor, self.device, self.batch)
        (shard,) = self.image_set.manifest.shards
        return extract_shard(
            self.image_set, shard, extractor, _opened(self.cache, extractor.protocol)
        )


@lru_cache(maxsize=1)
def _loaded(name: str, device: str, batch: int) -> Extractor:
    """Once a worker."""
    return load_extractor(name, device, batch)


@lru_cache(maxsize=1)
def _opened(folder: Path, protocol: FeatureProtocol) -> FeatureCache:
    """Once a worker: which of millions of images are there takes a while to read."""
    return FeatureCache(folder, protocol)


def plan_extraction(
    image_sets: Sequence[ImageSet],
    protocol: FeatureProtocol,
    extractor: str,
    device: str,
    batch: int,
    cache: Path,
) -> list[ShardTask]:
    """A task for each shard of which some image's features are not in the cache."""
    features = FeatureCache(cache, protocol)
    tasks: dict[str, ShardTask] = {}
    for image_set in image_sets:
        shards = image_set.shards()
        for start in range(0, len(shards), LOOKED_UP_TOGETHER):
            some = shards[start : start + LOOKED_UP_TOGETHER]
            for shard in _lacking(image_set, some, features, cache):
                alone = replace(
                    image_set,
                    release=image_set.release.resolve(),
                    manifest=replace(image_set.manifest, shards=(shard,)),
                )
                task = ShardTask(alone, cache.resolve(), extractor, device, batch)
                tasks[task.key] = task
    return list(tasks.values())


def _lacking(
    image_set: ImageSet, shards: Sequence[ShardRecord], features: FeatureCache, cache: Path
) -> list[ShardRecord]:
    """Those of which some image's features are not in the cache."""
    hashes = {
        shard.path: read_image_list(image_set, shard, cache).sha256
        for shard in shards
        if is_listed(image_set, shard, cache)
    }
    missing = iter(features.missing([one for own in hashes.values() for one in own]))
    there = {path for path, own in hashes.items() if not any(list(islice(missing, len(own))))}
    return [shard for shard in shards if shard.path not in there]


def run_extraction(
    tasks: Sequence[ShardTask],
    options: ClusterOptions,
    say: Callable[[str], None],
    on_shard: Callable[[ShardTask], None],
) -> None:
    """Do all tasks, on the cluster that `options` name; with one worker, in this process.

    One torch thread each, so that the bits of a feature do not depend on how many there are.
    """
    if options.workers == 1:
        for task in tasks:
            _run_task(task)
            on_shard(task)
    elif tasks:
        with open_cluster(options, len(tasks), say) as cluster:
            extract_on(cluster, tasks, on_shard)


def extract_on(
    cluster: Cluster, tasks: Sequence[ShardTask], on_shard: Callable[[ShardTask], None]
) -> None:
    """Do all tasks on the workers of `cluster`, one torch thread each."""
    from distributed import KilledWorker

    by_key = {task.key: task for task in tasks}
    futures = [cluster.submit(_run_task, task, key=key) for key, task in by_key.items()]
    for future in completed(cluster, futures):
        try:
            cluster.result(future)
        except KilledWorker:
            raise UserError(
                f"{future.key} ended its worker several times (out of memory?); what is extracted "
                "is kept: rerun with fewer --workers or a smaller --batch"
            ) from None
        on_shard(by_key[str(future.key)])
        future.release()


def _run_task(task: ShardTask) -> int:
    with _one_torch_thread():
        return task.run()


def extract_sets(
    image_sets: Sequence[ImageSet],
    name: str,
    extractor: Extractor,
    device: str,
    cache: Path,
    options: ClusterOptions,
    *,
    quiet: bool,
) -> None:
    """Features of every image that the cache lacks, with progress.

    name, device: the extractor's, as each worker loads it.
    """
    tasks = plan_extraction(image_sets, extractor.protocol, name, device, extractor.batch, cache)
    rows = sum(task.images for task in tasks)
    with progress_bar(rows, f"{name}, features", "images", quiet=quiet) as advance:
        say = (lambda _: None) if quiet else _remark
        run_extraction(tasks, options, say, lambda task: advance(task.images))


def _remark(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
