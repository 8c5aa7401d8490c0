"""The images that a training asks for: at each of its sides the same, in memory where they fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from release.errors import UserError
from release.files.commit import canonical_json, sha256_file, sha256_text
from release.files.storage import ReleasePath
from release.images.colour import images_in_colour
from release.layout.image_sets import (
    LabelledImages,
    first_of_each,
    listed_files,
    load_images,
    part_labels,
    stated_latents,
)
from release.layout.latents import Latents, parsed_latents
from release.streaming.encoded import EncodedImages, index_images, make_room
from release.streaming.image_cache import ImageCache

if TYPE_CHECKING:
    from torch import Tensor

    from generation.training.data.images import StreamedImages, TrainingImages
    from generation.training.data.latents import LatentImages

DEFAULT_RESIDENT_GB = 1.0
LOOKED_AT = 256  # images that are decoded at once to see whether they are in colour


@dataclass(frozen=True)
class Wanted:
    """What of a release is learned from. sides: of the images in px, the stage's own first, its
    parents' second; per_class: the first images of each class, None for all."""

    release: ReleasePath
    split: str
    sides: tuple[int, ...]
    per_class: int | None = None

    def count(self) -> int:
        """Images; their labels alone are read."""
        counts = np.bincount(part_labels(self.release, str(self.sides[0]), self.split))
        most = counts.max(initial=0) if self.per_class is None else self.per_class
        return int(np.minimum(counts, most).sum())

    def files_sha256(self) -> str:
        """Identity of the files that hold them, however they are read."""
        files = [
            [name, sha256 or sha256_file(self.release / name)]
            for side in self.sides
            for name, sha256 in listed_files(self.release, str(side), self.split)
        ]
        return sha256_text(canonical_json(sorted(files)))


@dataclass(frozen=True)
class TrainingSet:
    """The images at each side, in the order of their ids: all decoded, or all where they stand.

    loaders: processes that decode the latter; by default one a core less one, none with 0. latents:
    what they are where they are no images; they are read where they stand, or at once if `held`.
    """

    wanted: Wanted
    views: tuple[LabelledImages, ...] | tuple[EncodedImages, ...]
    files_sha256: str
    loaders: int | None = None
    latents: Latents | None = None
    held: bool = False

    def __len__(self) -> int:
        return len(self.views[0])

    @property
    def class_ids(self) -> tuple[str, ...]:
        return self.views[0].class_ids

    @property
    def resident(self) -> bool:
        """Whether they are decoded, in memory."""
        return self.held or isinstance(self.views[0], LabelledImages)

    def in_colour(self, *, count: bool = True) -> int:
        """How many have a pixel whose red, green and blue differ; not all are looked at if it is
        enough to know whether any has (`count` False)."""
        from generation.training.data.images import decoded

        images = self.views[0]
        if isinstance(images, LabelledImages):
            return images_in_colour(images.images)
        found = 0
        for start in range(0, len(images), LOOKED_AT):
            rows = range(start, min(start + LOOKED_AT, len(images)))
            found += images_in_colour(decoded(images, rows, self.wanted.sides[0]))
            if found and not count:
                break
        return found

    def told(
        self, by_class: "Tensor", channels: int
    ) -> "TrainingImages | StreamedImages | LatentImages":
        """As a network of so many channels sees them, told by_class[c] (int64) of class c.

        Latents have their own channels.
        """
        import torch

        from generation.networks.timm_classifier import to_channels
        from generation.training.data.images import StreamedImages, TrainingImages

        if self.latents is not None:
            return self._latents_told(self.latents, by_class)
        decoded = [view for view in self.views if isinstance(view, LabelledImages)]
        if decoded:
            own, *parents = (torch.from_numpy(to_channels(v.images, channels)) for v in decoded)
            labels = torch.from_numpy(decoded[0].labels)
            return TrainingImages(own, parents[0] if parents else None, by_class[labels])
        encoded = [view for view in self.views if isinstance(view, EncodedImages)]
        views = tuple(zip(self.wanted.sides, encoded, strict=True))
        return StreamedImages(views, channels, by_class, self.loaders)

    def _latents_told(self, latents: Latents, by_class: "Tensor") -> "LatentImages":
        from generation.training.data.latents import LatentImages

        (images,) = self.views
        assert isinstance(images, EncodedImages)
        found = LatentImages(latents, images, by_class, loaders=self.loaders)
        return found.in_memory() if self.held else found


def open_training_set(
    wanted: Wanted, resident_bytes: float, cache: ImageCache, loaders: int | None = None
) -> TrainingSet:
    """Decoded if they take at most `resident_bytes` then, else read as they are needed.

    It decides no weight: both make the same batches. cache: of images behind a URL. UserError for a
    release that cannot be read, images that differ from its manifest, and sides that differ in ids.
    """
    latents = _latents(wanted)
    if latents is not None:
        return _open_latents(wanted, latents, resident_bytes, cache, loaders)
    size = wanted.count() * sum(3 * side**2 for side in wanted.sides)
    views: tuple[LabelledImages, ...] | tuple[EncodedImages, ...]
    if size <= resident_bytes:
        views = tuple(_loaded(wanted, side) for side in wanted.sides)
        same = [view.image_ids == views[0].image_ids for view in views]
    else:
        views = tuple(_indexed(wanted, side, cache) for side in wanted.sides)
        make_room(cache, views)
        same = [v.rows["image_id"].equals(views[0].rows["image_id"]) for v in views]
    if not len(views[0]):
        raise UserError(f"{wanted.release} has no images of {wanted.split!r} to learn from")
    for side, equal in zip(wanted.sides, same, strict=True):
        if not equal:
            raise UserError(
                f"{wanted.release}: configurations {side} and {wanted.sides[0]} differ in ids"
            )
    return TrainingSet(wanted, views, wanted.files_sha256(), loaders)


def _latents(wanted: Wanted) -> Latents | None:
    """What the release is a set of; None for images."""
    return parsed_latents(stated_latents(wanted.release), wanted.release)


def _open_latents(
    wanted: Wanted,
    latents: Latents,
    resident_bytes: float,
    cache: ImageCache,
    loaders: int | None,
) -> TrainingSet:
    """Where they stand; read into memory if they take at most `resident_bytes` there."""
    if len(wanted.sides) > 1:
        raise UserError(f"{wanted.release} holds latents: a stage with parents learns from images")
    views = (_indexed(wanted, wanted.sides[0], cache),)
    make_room(cache, views)
    if not len(views[0]):
        raise UserError(f"{wanted.release} has no images of {wanted.split!r} to learn from")
    held = len(views[0]) * latents.image_bytes <= resident_bytes
    return TrainingSet(wanted, views, wanted.files_sha256(), loaders, latents, held)


def _loaded(wanted: Wanted, side: int) -> LabelledImages:
    images = load_images(wanted.release, str(side), wanted.split)
    rows = _first(wanted, images.labels, images.class_ids)
    return images if rows is None else images.take(rows)


def _indexed(wanted: Wanted, side: int, cache: ImageCache) -> EncodedImages:
    """As a view of a file, which other processes share and which takes no memory of this one."""
    from generation.training.data.sharing import read_once

    def read() -> tuple[EncodedImages, None]:
        images = index_images(wanted.release, str(side), wanted.split, cache=cache)
        rows = _first(wanted, images.labels, images.class_ids)
        return (images if rows is None else images.take(rows)).mapped_alone(), None

    return read_once(read)[0]


def _first(wanted: Wanted, labels: np.ndarray, class_ids: Sequence[str]) -> np.ndarray | None:
    if wanted.per_class is None:
        return None
    return first_of_each(labels, [wanted.per_class] * len(class_ids))
