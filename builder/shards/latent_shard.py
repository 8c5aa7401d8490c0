"""The files of a set of latents, made from those of a release's images."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.shards.stopping import raise_if_stopped
from release.classes.class_list import ClassEntry
from release.errors import UserError
from release.files.storage import ReleasePath
from release.layout.image_sets import decode
from release.layout.latents import (
    Latents,
    latents_fingerprint,
    latents_path,
    latents_schema,
    write_latents,
)
from release.layout.manifest import Manifest, ShardRecord
from release.layout.shard_commit import commit_shard, committed_record
from release.layout.shard_files import MOMENTS, iterate_shard, require_unchanged, shard_schema

BATCH = 16  # images encoded at once, the last ones padded: one shape for every batch


@dataclass(frozen=True)
class LatentShardJob:
    """One file of a set: what becomes of the images of the file `original` of `source`.

    release: the set's own folder, as a job's release is where its file is committed.
    """

    latents: Latents
    original: ShardRecord
    classes: tuple[ClassEntry, ...]
    source: ReleasePath
    release: ReleasePath
    after: None = None
    priority: int = 0

    @property
    def path(self) -> str:
        return latents_path(self.latents, self.original)

    @property
    def fingerprint(self) -> str:
        return latents_fingerprint(self.latents, self.original)

    @property
    def planned(self) -> int:
        return self.original.rows

    def committed(self) -> ShardRecord | None:
        """The record of the file if it is finished."""
        return committed_record(self.release, self)

    def run(self) -> ShardRecord:
        """Read, encode, commit; UserError for an autoencoder that is not here, or another."""
        started = time.time()
        file = self.source / self.original.path
        require_unchanged(file, self.original.sha256)
        tuning = "tuning" in shard_schema(file).names
        schema = latents_schema(self.classes, tuning=tuning)
        rows = list(self.rows(file, [name for name in schema.names if name != MOMENTS]))
        columns = {name: [row[name] for row in rows] for name in schema.names}
        return commit_shard(
            self.release,
            self.path,
            self.fingerprint,
            lambda sink: write_latents(sink, schema, columns),
            columns["class_id"],
            started,
        )

    def rows(self, file: ReleasePath, names: list[str]) -> Iterator[dict[str, Any]]:
        """Of the images' own columns `names`, and the moments."""
        for batch in iterate_shard(file, ["image", *names], BATCH):
            raise_if_stopped()
            rows = batch.to_pylist()
            images = np.stack([self._image(file, row) for row in rows])
            for row, moments in zip(rows, encoded(self.latents, images), strict=True):
                try:
                    content = self.latents.encoded(moments)
                except UserError as error:
                    raise UserError(f"{file}, image {row['image_id']}: {error}") from None
                yield {name: row[name] for name in names} | {MOMENTS: content}

    def _image(self, file: ReleasePath, row: dict[str, Any]) -> np.ndarray:
        side = self.latents.resolution
        try:
            image = decode(row["image"]["bytes"])
        except UserError as error:
            raise UserError(f"{file}, image {row['image_id']}: {error}") from None
        if image.shape != (side, side, 3):
            raise UserError(
                f"{file}, image {row['image_id']}: is {image.shape[1]} x {image.shape[0]}, not "
                f"{side} x {side} as its configuration says"
            )
        return image


def encoded(latents: Latents, images: np.ndarray) -> np.ndarray:
    """Of uint8[N,H,W,3], N at most BATCH: float32[N, *latents.shape]."""
    from generation.networks.placement import chosen_device
    from generation.pretrained.autoencoder import load_autoencoder

    autoencoder = load_autoencoder(latents.autoencoder, latents.sha256, chosen_device("auto"))
    padding = np.repeat(images[-1:], BATCH - len(images), axis=0)
    padded = np.concatenate([images, padding])
    return autoencoder.moments(padded, mirrored=latents.mirrored)[: len(images)]


def plan_latents(
    source: ReleasePath, manifest: Manifest, config: str, latents: Latents, root: ReleasePath
) -> list[LatentShardJob]:
    """A file for each file of the configuration that the release's manifest lists."""
    return [
        LatentShardJob(latents, record, manifest.classes, source, root)
        for record in manifest.shards
        if record.config == config
    ]
