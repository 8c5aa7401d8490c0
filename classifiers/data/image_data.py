"""The images of a training or a test: in memory where they fit, else decoded when needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from classifiers.data.sources import (
    Source,
    index_source,
    join_images,
    limited,
    load_source,
    take_times,
)
from classifiers.recipes.recipe import ClassifierRecipe, View
from generation.training.data.sharing import read_once, true_of_all
from generation.training.memory import memory_at_hand
from generation.training.processes import processes_here
from release.layout.image_sets import LabelledImages, images_sha256, pixels_sha256, split_sha256
from release.streaming.encoded import EncodedImages
from release.streaming.image_cache import DEFAULT_CACHE, ImageCache

COPIES = 4  # of the pixels, while they are decoded, laid out anew and padded
GPU_SHARE = 0.5  # of its free memory; the rest is the network's


def fits(recipe: ClassifierRecipe, sources: Sequence[Source]) -> bool:
    """Whether the decoded images have room in memory, all at the recipe's resolution.

    It decides no pixel: read one by one, the images make the same batches. Of several processes all
    must have room, since they read together.
    """
    return true_of_all(_has_room(recipe, sources))


def _has_room(recipe: ClassifierRecipe, sources: Sequence[Source]) -> bool:
    """Of this process's share of the host's memory, and of its GPU's."""
    if not all(source.config.isdecimal() for source in sources):
        return False
    images = sum(source.images for source in sources)
    needed = COPIES * images * recipe.resolution**2 * 3
    if processes_here() * needed > memory_at_hand():
        return False
    import torch

    if not torch.cuda.is_available():
        return True
    side = recipe.resolution + 2 * recipe.augmentation.shift
    free, _ = torch.cuda.mem_get_info()
    return images * side**2 * recipe.channels <= GPU_SHARE * free


def read_training(
    recipe: ClassifierRecipe,
    sources: Sequence[Source],
    times: float | None,
    advance: Callable[[int], None],
    cache: ImageCache = DEFAULT_CACHE,
) -> tuple[LabelledImages | EncodedImages, tuple[int, ...]]:
    """The images of all sources, one after the other, and how many each gives.

    Of generated ones `times` as many as are real, if given. `advance` gets the number of images
    just read. cache: for releases behind a URL.
    """
    if recipe.augmentation.one_by_one or not fits(recipe, sources):
        return read_once(lambda: _index_all(sources, times, advance, cache))
    loaded = [_load(recipe, source, advance) for source in sources]
    parts = loaded if times is None else take_times(sources, loaded, times)
    return join_images(parts), tuple(map(len, parts))


def _index_all(
    sources: Sequence[Source],
    times: float | None,
    advance: Callable[[int], None],
    cache: ImageCache,
) -> tuple[EncodedImages, tuple[int, ...]]:
    indexed = [index_source(source, advance, cache) for source in sources]
    parts = indexed if times is None else take_times(sources, indexed, times)
    return join_images(parts), tuple(map(len, parts))


def read_testing(
    recipe: ClassifierRecipe,
    source: Source,
    advance: Callable[[int], None],
    cache: ImageCache = DEFAULT_CACHE,
) -> LabelledImages | EncodedImages:
    """The test images."""
    if fits(recipe, [source]):
        return _load(recipe, source, advance)
    images, _ = read_once(lambda: (index_source(source, advance, cache), None))
    return images


def source_sha256(
    source: Source, data: LabelledImages | EncodedImages, threads: int | None = None
) -> str:
    """Identity of a test set: images_sha256 of the configuration that `source` names.

    Of images as they are stored, before the recipe's view, so that all recipes state the same. What
    is in memory as it is stored is hashed there. Any other set is decoded once more, by `threads`,
    which costs as much as testing on it: less than a hundredth of a training of usual length.
    """
    if isinstance(data, LabelledImages) and str(data.images.shape[1]) == source.config:
        class_ids = (data.class_ids[label] for label in data.labels)
        return images_sha256(map(pixels_sha256, data.images), class_ids)
    only = source.class_ids if source.stored else None
    return split_sha256(source.path, source.config, source.split, threads, only)


def _load(
    recipe: ClassifierRecipe, source: Source, advance: Callable[[int], None]
) -> LabelledImages:
    key = _Decoding(
        name=str(source),
        content_sha256=source.manifest.content_sha256,
        classes=source.class_ids,
        resolution=recipe.resolution,
        view=recipe.view,
        source=source,
    )
    images = limited(source, _decode(key))
    advance(source.images)
    return images


@dataclass(frozen=True)
class _Decoding:
    """What decides the pixels of a whole source."""

    name: str
    content_sha256: str
    classes: tuple[str, ...]
    resolution: int
    view: View
    source: Source = field(compare=False)


@lru_cache(maxsize=3)
def _decode(key: _Decoding) -> LabelledImages:
    """Kept, since a study's next training mostly takes other parts of the same sets."""
    return load_source(replace(key.source, per_class=None), key.resolution, key.view)
