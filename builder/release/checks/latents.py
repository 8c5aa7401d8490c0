"""What each file of a set of latents ought to be: the rows of its release, with their moments."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pyarrow as pa

from builder.release.checks.shards import Columns, ShardCheck, read_columns
from builder.shards.latent_shard import LatentShardJob, encoded, plan_latents
from generation.pretrained.autoencoder_files import require_autoencoder
from release.errors import UserError
from release.files.storage import ReleasePath, StorageError, list_files
from release.layout.findings import Problem, differing
from release.layout.image_sets import decode
from release.layout.latents import FOLDER, Latents, latents_schema
from release.layout.manifest import MANIFEST_FILE, Manifest, ShardRecord, read_manifest
from release.layout.shard_files import iterate_shard, shard_schema

READ_ROWS = 16
SAMPLED = 4  # images of each file that are encoded again, where the autoencoder is at hand
LIKE = 0.02  # of a latent's size: what another device, or batch, may change of it


def latent_sets(release: ReleasePath) -> list[str]:
    """Names of the release's finished sets of latents."""
    names = list_files(release / FOLDER)
    return sorted(name.split("/")[0] for name in names if name.split("/")[1:] == [MANIFEST_FILE])


def latent_checks(
    root: ReleasePath, manifest: Manifest, latents: Latents
) -> tuple[list[ShardCheck], list[Problem]]:
    """A check of each file, and what is wrong with the list of them.

    Compared with the release that the set stands in, if it stands in one.
    """
    release = root.parent.parent
    try:
        source = read_manifest(release)
    except StorageError:
        raise
    except UserError as error:
        text = f"cannot be compared with the images' release: {error}"
        own = [_check(None, latents, manifest, root, r) for r in manifest.shards]
        return own, [Problem(MANIFEST_FILE, text)]
    config = str(latents.resolution)
    jobs = {job.path: job for job in plan_latents(release, source, config, latents, root)}
    listed = {record.path for record in manifest.shards}
    problems = [
        Problem(record.path, f"is not of a file of {config} that the release lists")
        for record in manifest.shards
        if record.path not in jobs
    ]
    if lacking := len(jobs.keys() - listed):
        text = f"lacks {lacking:,} of {len(jobs):,} files: run `release encode` again"
        problems.append(Problem(config, text))
    checks = [
        _check(jobs[record.path], latents, source, root, record)
        for record in manifest.shards
        if record.path in jobs
    ]
    return checks, problems


def _check(
    job: LatentShardJob | None,
    latents: Latents,
    manifest: Manifest,
    root: ReleasePath,
    record: ShardRecord,
) -> ShardCheck:
    file = root / record.path
    if job is not None:
        file = job.source / job.original.path
    try:
        tuning = "tuning" in shard_schema(file).names
    except (pa.ArrowException, OSError, StorageError):
        tuning = False
    schema = latents_schema(manifest.classes, tuning=tuning)
    moments = _MomentsCheck(latents, job)
    return ShardCheck(record, schema, _RowCheck(job), image=None, moments=moments)


@dataclass(frozen=True)
class _RowCheck:
    """Rows of one file: those of the images, in every column but the moments."""

    job: LatentShardJob | None

    def __call__(self, columns: Columns) -> list[str]:
        if self.job is None:
            return []
        theirs = read_columns(self.job.source / self.job.original.path, list(columns))
        if theirs is None:
            return []
        names = columns["image_id"]
        if names != theirs["image_id"]:
            return ["has other rows than its file of images"]
        return [
            line
            for name, values in columns.items()
            for line in differing(f"{name} is not the image's", names, values, theirs[name])
        ]


@dataclass(frozen=True)
class _MomentsCheck:
    """Numbers of the set's shape, all finite; of some images what the autoencoder makes of them."""

    latents: Latents
    job: LatentShardJob | None

    def __call__(self, image_id: str, content: bytes | None) -> str | None:
        try:
            found = self.latents.decoded(content or b"").astype(np.float32)
        except UserError as error:
            return f"cannot be read: {error}"
        if not np.isfinite(found).all():
            return "is not finite"
        wanted = self._sample.pop(image_id, None)
        if wanted is None:
            return None
        scale = max(1.0, float(np.abs(wanted).max()))
        return None if float(np.abs(found - wanted).max()) <= LIKE * scale else "is another's"

    @cached_property
    def _sample(self) -> dict[str, np.ndarray]:
        """Of some images of the file their moments, made again; none without the autoencoder."""
        if self.job is None:
            return {}
        rows = self.job.original.rows
        place = int.from_bytes(hashlib.sha256(self.job.fingerprint.encode()).digest()[:8], "big")
        start = place % max(1, rows - SAMPLED + 1)
        try:
            require_autoencoder(self.latents.autoencoder, self.latents.sha256)
            file = self.job.source / self.job.original.path
            names, images = zip(*islice(_images(file), start, start + SAMPLED), strict=True)
            return dict(zip(names, encoded(self.latents, np.stack(images)), strict=True))
        except (pa.ArrowException, OSError, ValueError, UserError):
            return {}  # what is wrong with an image, its release's own check says


def _images(file: ReleasePath) -> Iterator[tuple[str, np.ndarray]]:
    for batch in iterate_shard(file, ["image_id", "image"], READ_ROWS):
        for row in batch.to_pylist():
            yield row["image_id"], decode(row["image"]["bytes"])
