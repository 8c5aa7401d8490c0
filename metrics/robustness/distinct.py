"""No two sets of one command hold the same images: that would be one measurement written twice."""

from collections.abc import Callable, Sequence
from functools import cache as cached
from pathlib import Path

from metrics.features.image_lists import ImageSet, read_image_list, same_label
from release.errors import UserError
from release.layout.image_sets import images_sha256


def require_distinct(test: ImageSet, shifted: Sequence[ImageSet], cache: Path) -> None:
    """UserError for the same image files in the same classes, or a set called as another is."""
    require_other_images(test, shifted, cache, lambda own: _files_sha256(own, cache))
    _require_labels([test, *shifted])


def require_other_images(
    test: ImageSet, shifted: Sequence[ImageSet], cache: Path, identity: Callable[[ImageSet], str]
) -> None:
    """UserError if two sets share their `identity`; asked only where they count the same."""
    sets = [test, *shifted]
    counts = [_counts(own, cache) for own in sets]
    of = cached(lambda place: identity(sets[place]))
    for later in range(1, len(sets)):
        for earlier in range(later):
            if counts[earlier] == counts[later] and of(earlier) == of(later):
                raise UserError(
                    f"--shifted {sets[later].label} holds the same images as "
                    f"{'--shifted' if earlier else '--test'} {sets[earlier].label}: their results "
                    "would be one measurement twice; leave it out"
                )


def _require_labels(sets: Sequence[ImageSet]) -> None:
    label = same_label(sets)
    if label is not None:
        raise UserError(
            f"--shifted {label} is called as another set of this command is, so both would "
            "write one result file; leave it out, or import it under another name (--out)"
        )


def _counts(image_set: ImageSet, cache: Path) -> dict[str, int]:
    """Images by wnid, of the classes that have any."""
    wnids = [entry.wnid for entry in image_set.manifest.classes]
    counts = image_set.count_per_class(cache).tolist()
    return {wnid: n for wnid, n in zip(wnids, counts, strict=True) if n}


def _files_sha256(image_set: ImageSet, cache: Path) -> str:
    """Identity by encoded images: nothing is decoded."""
    wnids = [entry.wnid for entry in image_set.manifest.classes]
    lists = [read_image_list(image_set, shard, cache) for shard in image_set.shards()]
    return images_sha256(
        [sha256 for images in lists for sha256 in images.sha256],
        [wnids[label] for images in lists for label in images.labels.tolist()],
    )
