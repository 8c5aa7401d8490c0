"""Importing real data as a release: original bytes, and views at fixed resolutions."""

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from builder.build import finish_release
from builder.encode import encode_image
from builder.manifest import Manifest, ShardRecord
from builder.markers import commit_shard, committed_record
from builder.parquet import image_features, table_schema, write_table
from builder.plan import FORMAT
from builder.run import Outcome, RunSettings, run_missing
from builder.state import RealState, read_state
from generation.commit import canonical_json, sha256_bytes, sha256_text
from generation.errors import UserError
from generation.real_sources import RealSource, RealSplit, open_source
from generation.storage import ReleasePath, release_name
from generation.views import CropRule, make_view

ORIGINAL = "original"
ROWS_PER_SHARD = 5000
TUNING_SHARE = 10  # one image in ten of train, of each class
TUNING_RULE = "of each class in train, the tenth with the lowest SHA-256 of its image_id"
COLUMNS = {
    "class_id": "string",
    "image_id": "string",
    "original_sha256": "string",
    "width": "int32",
    "height": "int32",
    "crop_rule": "string",
    "tuning": "bool",
}


@dataclass(frozen=True)
class ImportJob:
    """Rows start <= i < stop of one split in one configuration: one Parquet file."""

    source: str
    split: str
    config: str
    crop_rule: CropRule
    start: int
    stop: int
    fingerprint: str
    release: ReleasePath
    after: str | None = None
    priority: int = 0

    @property
    def path(self) -> str:
        name = f"{self.split}-{self.start:08d}-{self.fingerprint[:10]}"
        return f"{self.config}/{name}.parquet"

    @property
    def planned(self) -> int:
        return self.stop - self.start

    def committed(self) -> ShardRecord | None:
        """The record of the file if it is finished."""
        return committed_record(self.release, self)

    def run(self) -> ShardRecord:
        """Read, view, encode, commit."""
        started = time.time()
        source = open_source(self.source)
        rows = [_row(self, source, i) for i in range(self.start, self.stop)]
        features = image_features(source.classes, COLUMNS)
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
        schema = table_schema(features, source.classes)
        return commit_shard(
            self.release,
            self.path,
            self.fingerprint,
            lambda sink: write_table(sink, schema, columns),
            columns["class_id"],
            started,
        )


def import_real(
    name: str,
    release: ReleasePath,
    views: Sequence[int],
    crop_rule: CropRule,
    settings: RunSettings,
    on_done: Callable[[ShardRecord], None],
) -> Outcome:
    """Import every split of `name` into `release`; rerun it to go on."""
    source = open_source(name)
    state = _plan_state(name, source, release, views, crop_rule)
    jobs = plan_import(name, source, release.absolute(), state.views, crop_rule)
    outcome = run_missing(release, state, jobs, settings, on_done)
    if not outcome.records:
        return outcome
    manifest = Manifest(
        name=release_name(release),
        kind="real",
        dataset=source.name,
        regime=None,
        license=source.license,
        classes=source.classes,
        origin={
            "source": name,
            "crop_rule": crop_rule,
            "tuning_rule": TUNING_RULE,
            **source.origin(),
            **outcome.origin(),
        },
        shards=outcome.records,
    )
    return replace(outcome, manifest=finish_release(release, manifest))


def _plan_state(
    name: str, source: RealSource, release: ReleasePath, views: Sequence[int], crop_rule: CropRule
) -> RealState:
    """What the folder is going to hold, earlier views included; UserError if it has other data."""
    images = images_sha256(source)
    earlier = read_state(release, RealState)
    if earlier is None:
        return RealState(name, crop_rule, images, tuple(sorted(views)))
    if earlier.images_sha256 != images:
        raise UserError(f"{release} holds other images, of {earlier.source}; name another --out")
    if earlier.crop_rule != crop_rule:
        raise UserError(f"{release} has views by --crop {earlier.crop_rule}; name another --out")
    return replace(earlier, source=name, views=tuple(sorted({*earlier.views, *views})))


def images_sha256(source: RealSource) -> str:
    """Which images the source holds: a hash of their keys and labels."""
    content = [
        [split, [[data.key(i), label] for i, label in enumerate(data.labels)]]
        for split, data in source.splits.items()
    ]
    return sha256_text(canonical_json(content))


def plan_import(
    name: str, source: RealSource, release: ReleasePath, views: Sequence[int], crop_rule: CropRule
) -> list[ImportJob]:
    """One job a file: the original bytes, then each view, of each stretch of each split."""
    jobs = []
    for config in (ORIGINAL, *map(str, views)):
        for split, data in source.splits.items():
            labels = list(data.labels)
            ends = [*range(0, len(labels), ROWS_PER_SHARD), len(labels)]
            content = {
                "format": FORMAT,
                "config": config,
                "crop_rule": None if config == ORIGINAL else crop_rule,
                "images": [[data.key(i), label] for i, label in enumerate(labels)],
            }
            fingerprint = sha256_text(canonical_json(content))
            jobs += [
                ImportJob(name, split, config, crop_rule, start, stop, fingerprint, release)
                for start, stop in pairwise(ends)
            ]
    return jobs


def tuning_rows(image_ids: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    """bool[N]: the rows of train that selection may look at, and no result (TUNING_RULE)."""
    hashes = [hashlib.sha256(i.encode()).digest() for i in image_ids]
    chosen = np.zeros(len(labels), dtype=bool)
    for label in set(labels):
        rows = sorted(
            (i for i, other in enumerate(labels) if other == label), key=hashes.__getitem__
        )
        chosen[rows[: len(rows) // TUNING_SHARE]] = True
    return chosen


@lru_cache(maxsize=2)
def _tuning_rows_of(source: str, split: str) -> np.ndarray:
    data = open_source(source).splits[split]
    if split != "train":
        return np.zeros(len(data.labels), dtype=bool)
    return tuning_rows([_image_id(split, data, i) for i in range(len(data.labels))], data.labels)


def _image_id(split: str, data: RealSplit, i: int) -> str:
    return f"{split}-{data.key(i)}"


def _row(job: ImportJob, source: RealSource, i: int) -> dict[str, Any]:
    data = source.splits[job.split]
    content = data.read(i)
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if job.config == ORIGINAL:
                image.verify()
                stored = content
            else:
                pixels = make_view(image, int(job.config), job.crop_rule)
                stored = encode_image(pixels, "webp-lossless", synthetic=False)
    except (OSError, SyntaxError, Image.DecompressionBombError):  # as Pillow refuses an image
        raise UserError(
            f"{job.source}: image {data.key(i)} of {job.split} cannot be decoded; remove or mend it"
        ) from None
    label = data.labels[i]
    return {
        "image": stored,
        "label": label,
        "class_id": source.classes[label].wnid,
        "image_id": _image_id(job.split, data, i),
        "original_sha256": sha256_bytes(content),
        "width": width,
        "height": height,
        "crop_rule": "none" if job.config == ORIGINAL else job.crop_rule,
        "tuning": bool(_tuning_rows_of(job.source, job.split)[i]),
    }
