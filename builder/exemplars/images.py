"""The exemplars' images: found by the index of their release, read once a process."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa

from builder.exemplars.located import LocatedExemplars, other_content
from release.errors import UserError
from release.images.colour import images_in_colour
from release.layout.image_sets import first_of_each
from release.layout.manifest import read_manifest
from release.streaming.encoded import EncodedImages, index_images

MOST_HELD = 4096  # exemplars in memory before a shard's: at 256 px half a gigabyte


@dataclass(frozen=True)
class Exemplar:
    """One real image: its id in its release, and its encoded bytes."""

    image_id: str
    content: bytes


@dataclass
class ExemplarImages:
    """images: of each class the first ones, all in the order of their ids. rows: of `images`, in
    that order, by class id."""

    located: LocatedExemplars
    images: EncodedImages
    rows: dict[str, list[int]]
    _held: dict[int, Exemplar] = field(default_factory=dict)

    @classmethod
    def open(cls, located: LocatedExemplars) -> "ExemplarImages":
        """No image is read yet: of a release with an index its labels and ids alone are.

        UserError if the release is gone or has other content than when it was located.
        """
        place = located.place
        found = read_manifest(place).content_sha256
        if found != located.sha256:
            raise other_content(place, found, located.sha256)
        every = index_images(place, located.config, located.split)
        counts = [located.per_class] * len(every.class_ids)
        images = every.take(first_of_each(every.labels, counts))
        by_class = {
            wnid: np.flatnonzero(images.labels == label).tolist()
            for label, wnid in enumerate(images.class_ids)
        }
        return cls(located, images, by_class)

    def of(self, slots: Sequence[tuple[str, int]]) -> list[Exemplar]:
        """What each slot (class id, index) begins from; what is not held yet is read."""
        rows = [self._row(wnid, index) for wnid, index in slots]
        return self._read(rows)

    def ids_of(self, slots: Sequence[tuple[str, int]]) -> list[str]:
        """The ids alone."""
        return self._ids([self._row(wnid, index) for wnid, index in slots])

    def named(self, image_ids: Sequence[str]) -> list[Exemplar]:
        """By their ids; UserError for one that is no exemplar."""
        row_of = {image_id: row for row, image_id in enumerate(self.images.image_ids)}
        for image_id in image_ids:
            if image_id not in row_of:
                raise UserError(f"{self.located}: image {image_id!r} is not among the exemplars")
        return self._read([row_of[image_id] for image_id in image_ids])

    def _row(self, wnid: str, index: int) -> int:
        return self.rows[wnid][self.located.number(index)]

    def _ids(self, rows: Sequence[int]) -> list[str]:
        return list(self.images.rows["image_id"].take(pa.array(rows, pa.int64())).to_pylist())

    def _read(self, rows: Sequence[int]) -> list[Exemplar]:
        if len(self._held) > MOST_HELD:
            self._held.clear()
        missing = sorted(set(rows) - self._held.keys())
        contents = self.images.read(missing)
        for row, image_id, content in zip(missing, self._ids(missing), contents, strict=True):
            self._held[row] = Exemplar(image_id, content)
        return [self._held[row] for row in rows]

    def require_enough(self, class_ids: Sequence[str]) -> None:
        """UserError unless there are per_class of each class."""
        for wnid in class_ids:
            found = len(self.rows.get(wnid, ()))
            if found < self.located.per_class:
                raise UserError(
                    f"[stage.exemplars]: {self.located} has {found} images of class {wnid!r}, "
                    f"and per_class is {self.located.per_class}"
                )

    def require_fit(self, side: int, channels: int) -> None:
        """UserError unless all are of `side` px, and grey for a network of 1 channel.

        Each is decoded.
        """
        every = range(len(self.images))
        for row, image in zip(every, self.images.images(every), strict=True):
            if image.size != (side, side):
                width, height = image.size
                problem = f"{width} x {height} px, and the stage makes {side} px"
            elif channels == 1 and images_in_colour(np.asarray(image)[None]):
                problem = "in colour, and the stage's checkpoint is grey (channels = 1)"
            else:
                continue
            raise UserError(f"[stage.exemplars]: {self.images.named(row)}: is {problem}")


@lru_cache(maxsize=1)  # a worker makes one stage's images at a time
def open_exemplars(located: LocatedExemplars) -> ExemplarImages:
    """As ExemplarImages.open, once a process."""
    return ExemplarImages.open(located)
