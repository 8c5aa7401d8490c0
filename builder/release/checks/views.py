"""What each file of a training view ought to be: the rows of its source, with smaller images."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pyarrow as pa
from PIL import Image

from builder.release.checks.shards import (
    Columns,
    ImageRow,
    ShardCheck,
    read_columns,
)
from builder.shards.view_shard import ViewShardJob, plan_view
from release.errors import UserError
from release.files.storage import ReleasePath, StorageError
from release.images.decoding import is_marked_synthetic
from release.images.encoding import jpeg_codec
from release.layout.findings import Problem, differing
from release.layout.image_sets import decode
from release.layout.manifest import Manifest, ShardRecord
from release.layout.shard_files import iterate_shard, shard_schema
from release.layout.training_views import TrainingView, lagging, stated_views

READ_ROWS = 16
SAMPLED = 4  # images of each file that are made again
# Levels of 255, mean over an image's values: what two JPEG libraries may differ by, of one picture
LIKE = 2.0


def view_checks(release: ReleasePath, manifest: Manifest) -> tuple[list[ShardCheck], list[Problem]]:
    """A check of each file of each view, and what is wrong with the list of them."""
    listed = {record.path: record for record in manifest.shards}
    checks: list[ShardCheck] = []
    problems = [Problem(name, text) for name, text in lagging(manifest).items()]
    for view in stated_views(manifest):
        jobs = plan_view(release, manifest, view)
        checks += [
            check
            for job in jobs
            if job.path in listed and (check := _check(release, job, listed[job.path])) is not None
        ]
        paths = {job.path for job in jobs}
        problems += [
            Problem(record.path, f"is not of a file of {view.source} that the manifest lists")
            for record in manifest.shards
            if record.config == view.name and record.path not in paths
        ]
    return checks, problems


def _check(release: ReleasePath, job: ViewShardJob, record: ShardRecord) -> ShardCheck | None:
    """None where the source cannot be read: that is a problem of the source's own."""
    source = release / job.original.path
    try:
        schema = shard_schema(source)
    except (pa.ArrowException, OSError, StorageError):
        return None
    return ShardCheck(record, schema, _RowCheck(job.view, source), _ImageCheck(job, source))


@dataclass(frozen=True)
class _RowCheck:
    """Rows of one file: those of its `source`, in every column but the image."""

    view: TrainingView
    source: ReleasePath

    def __call__(self, columns: Columns) -> list[str]:
        theirs = read_columns(self.source, list(columns))
        if theirs is None:
            return []
        names = columns["image_id"]
        if names != theirs["image_id"]:
            return [f"has other rows than its file of {self.view.source}"]
        if "crop_rule" in theirs:
            theirs["crop_rule"] = [self.view.rule] * len(names)
        return [
            line
            for name, values in columns.items()
            for line in differing(f"{name} is not the source's", names, values, theirs[name])
        ]


@dataclass(frozen=True)
class _ImageCheck:
    """A JPEG of the view's size, marked as its source is; of some the image made again."""

    job: ViewShardJob
    source: ReleasePath

    def __call__(self, row: ImageRow) -> str | None:
        view, image = self.job.view, row.image
        if image.format != "JPEG" or image.mode != "RGB":
            return f"is {image.format} {image.mode}, not JPEG RGB"
        if min(image.size) > view.size:
            return f"is {image.width} x {image.height}, its short side more than {view.size}"
        if is_marked_synthetic(image) != self.job.synthetic:
            lacks = "lacks" if self.job.synthetic else "carries"
            return f"{lacks} the mark of synthetic media"
        wanted = self._sample.pop(row.columns["image_id"], None)
        if wanted is None or wanted == row.content:
            return None
        if jpeg_codec() == view.codec:
            return "is not what its source gives: its bytes are others"
        return None if _alike(wanted, image) else "is not what its source gives"

    @cached_property
    def _sample(self) -> dict[str, bytes]:
        """Some images of the file, made again from its source; none if that cannot be read.

        Those looked at are taken out: the checks of all files are in memory at once.
        """
        rows = self.job.original.rows
        place = int.from_bytes(hashlib.sha256(self.job.fingerprint.encode()).digest()[:8], "big")
        start = place % max(1, rows - SAMPLED + 1)
        try:
            found = islice(_rows_of(self.source), start, start + SAMPLED)
            encoded = self.job.view.encoded
            return {name: encoded(content, synthetic=self.job.synthetic) for name, content in found}
        except (pa.ArrowException, OSError, UserError):
            return {}


def _rows_of(source: ReleasePath) -> Iterator[tuple[str, bytes]]:
    for batch in iterate_shard(source, ["image_id", "image"], READ_ROWS):
        contents = batch["image"].field("bytes").to_pylist()
        yield from zip(batch["image_id"].to_pylist(), contents, strict=True)


def _alike(wanted: bytes, image: Image.Image) -> bool:
    """Whether `image` is the one of the bytes `wanted`, but for what another library changes."""
    pixels, found = decode(wanted).astype(float), np.asarray(image)
    return pixels.shape == found.shape and float(np.abs(pixels - found).mean()) <= LIKE
