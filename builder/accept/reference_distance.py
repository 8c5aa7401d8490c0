"""Rejects near copies of the images of a fixed release.

Distance: root mean square difference of two images' pixels, in levels (0 to 255). It sees copies
at the same place and size, not moved or mirrored ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from builder.accept import StageFacts, Verdict
from release.errors import UserError
from release.files.commit import canonical_json, sha256_file, sha256_text
from release.layout.image_sets import LabelledImages, listed_files, load_images, split_files
from release.layout.manifest import read_manifest

CHUNK = 4096  # reference images compared at once


class Settings(BaseModel):
    """reference: folder of a release, of which one configuration and split count.

    minimum: an image nearer than that to any of them is rejected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: Annotated[Path, Field(exclude=True)]
    config: str
    split: str = "train"
    minimum: Annotated[float, Field(gt=0, le=255)]


def locate(settings: Settings, stage: StageFacts) -> Path:
    """The release's folder; UserError if it is unfinished or its images have another size."""
    read_manifest(settings.reference)
    split_files(settings.reference, settings.config, settings.split)
    if settings.config != str(stage.resolution):
        raise UserError(
            f"accept rule reference-distance: config {settings.config!r} does not hold images of "
            f"the stage's {stage.resolution} px"
        )
    return settings.reference.absolute()


def sha256(place: Path, settings: Settings) -> str:
    """Hash over the files of the split, as the release's manifest states them."""
    return sha256_text(canonical_json([settings.split, _stated(place, settings)]))


def load(place: Path, settings: Settings) -> "ReferenceDistance":
    """The reference images in memory; UserError if a file is not the one the manifest names."""
    for path, stated in _stated(place, settings).items():
        if sha256_file(place / path) != stated:
            raise UserError(f"{place / path} is not the file that the release's manifest names")
    return ReferenceDistance(load_images(place, settings.config, settings.split), settings.minimum)


def _stated(place: Path, settings: Settings) -> dict[str, str]:
    """SHA-256 of each file of the split, by path."""
    files = listed_files(place, settings.config, settings.split)
    return {path: sha256 for path, sha256 in files if sha256 is not None}


class ReferenceDistance:
    """The rule, loaded."""

    def __init__(self, reference: LabelledImages, minimum: float) -> None:
        self._ids = reference.image_ids
        self._pixels = reference.images.reshape(len(reference), -1)
        self._squares = np.concatenate(
            [(chunk.astype(np.float32) ** 2).sum(axis=1) for chunk in self._chunks()]
        )
        self._minimum = minimum

    def judge(self, images: np.ndarray, labels: Sequence[int]) -> list[Verdict]:  # noqa: ARG002
        """Score: the distance to the nearest reference image."""
        flat = images.reshape(len(images), -1)
        verdicts = []
        for image, nearest in zip(flat, self._nearest(flat.astype(np.float32)), strict=True):
            difference = image.astype(np.float64) - self._pixels[nearest]
            distance = float(np.sqrt(np.mean(difference**2)))
            reason = f"near copy of {self._ids[nearest]}" if distance < self._minimum else None
            verdicts.append(Verdict(reason, distance))
        return verdicts

    def _nearest(self, images: np.ndarray) -> np.ndarray:
        """int64[N]: the reference image nearest to each row of float32[N,D]."""
        best = np.full(len(images), np.inf, dtype=np.float32)
        found = np.zeros(len(images), dtype=np.int64)
        first = 0
        for chunk in self._chunks():
            # |a - b|² less |a|², which is the same for every b
            squares = self._squares[first : first + len(chunk)]
            distances = squares - 2 * (images @ chunk.astype(np.float32).T)
            nearest = distances.argmin(axis=1)
            value = distances[np.arange(len(images)), nearest]
            found = np.where(value < best, first + nearest, found)
            best = np.minimum(best, value)
            first += len(chunk)
        return found

    def _chunks(self) -> list[np.ndarray]:
        return [self._pixels[i : i + CHUNK] for i in range(0, len(self._pixels), CHUNK)]
