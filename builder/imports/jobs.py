"""The jobs of an import: a file of images as they came, and files of views made from that file.

A source is read once. Views are made from the file of originals, so both always have the same
bytes. A file counts as done while what it was made from is as it was: of originals the versions of
the source's images, of views the hash of their originals.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from builder.cluster.worker import Job, WrappedJob
from builder.imports.layout import Stretch, has_file_names, image_id, view_parts
from builder.shards.rejections import rejections_file
from builder.shards.stopping import raise_if_stopped
from release.errors import UserError
from release.files.commit import (
    canonical_json,
    sha256_bytes,
    sha256_text,
)
from release.files.storage import ReleasePath
from release.images.decoding import decode_rgb
from release.images.encoding import encode_image
from release.images.views import RECORDED_RULES, CropRule, make_view
from release.layout.manifest import ShardRecord
from release.layout.markers import (
    commit_written,
    committed_record,
    committed_records,
    forget_shard,
    made_from,
    read_marker,
    write_shard,
)
from release.layout.parquet import ROW_GROUP_BYTES, image_features, table_schema, write_groups
from release.layout.shard_files import FORMAT, ORIGINAL, iterate_shard, read_shard, shard_schema
from release.real_sources import RealSource, open_source

COLUMNS = {
    "class_id": "string",
    "image_id": "string",
    "original_sha256": "string",
    "width": "int32",
    "height": "int32",
    "crop_rule": "string",
    "tuning": "bool",
}
FILE_NAME = {"file_name": "string"}  # where images are files: as it stands in its source
READ_ROWS = 16

Row = dict[str, Any]  # of a file; or, with a `reason`, what is written of an image that is left out


@dataclass(frozen=True)
class OriginalJob:
    """Images of one split as they came: one Parquet file. Those that cannot be read are left out.

    made_from: versions of the source's images when this was planned.
    """

    source: str
    stretch: Stretch
    fingerprint: str
    made_from: str
    release: ReleasePath
    after: None = None
    priority: int = 1  # bad images are known before any view is made

    @property
    def path(self) -> str:
        place = f"{self.stretch.split}-{self.stretch.place:08d}"
        return f"{ORIGINAL}/{place}-{self.fingerprint[:10]}.parquet"

    @property
    def planned(self) -> int:
        return len(self.stretch.rows)

    def committed(self) -> ShardRecord | None:
        """The record of the file if it is finished and its images are as they were."""
        return _record_made_from(self, self.made_from)

    def run(self) -> ShardRecord:
        """Read, decode, commit."""
        source = self._open()
        columns = COLUMNS | (FILE_NAME if has_file_names(source) else {})
        schema = table_schema(image_features(source.classes, columns), source.classes)
        return _commit(self, schema, self._rows(source), self.made_from)

    def _open(self) -> RealSource:
        """The source as it was planned with; a worker that lives long may have an earlier one."""
        if not self._is_as_planned(open_source(self.source)):
            open_source.cache_clear()
        return open_source(self.source)

    def _is_as_planned(self, source: RealSource) -> bool:
        try:
            return versions(source, self.stretch) == self.made_from
        except (KeyError, IndexError):  # other splits, fewer images
            return False

    def _rows(self, source: RealSource) -> Iterator[Row]:
        for slot in range(self.planned):
            yield original_row(source, self.stretch, slot)
        if not self._is_as_planned(source):  # asked last, so that it is true of all that was read
            raise UserError(f"{self.source} was changed while it was imported: run again")


@dataclass(frozen=True)
class ViewJob:
    """Views of the images in slots start <= i < stop of the file `after`: one Parquet file.

    part: its number if the file of originals becomes several.
    """

    after: str
    resolution: int
    crop_rule: CropRule
    slots: tuple[int, int]
    part: int | None
    fingerprint: str
    release: ReleasePath
    priority: int = 0

    @property
    def path(self) -> str:
        place = self.after.split("/")[1].rsplit("-", 1)[0]
        part = "" if self.part is None else f"p{self.part:03d}"
        return f"{self.resolution}/{place}{part}-{self.fingerprint[:10]}.parquet"

    @property
    def planned(self) -> int:
        return self.slots[1] - self.slots[0]

    def committed(self) -> ShardRecord | None:
        """The record of the file if it is finished and was made from the originals there are."""
        original = read_marker(self.release, self.after)
        return _record_made_from(self, original.sha256) if original else None

    def run(self) -> ShardRecord:
        """Read the originals, view, encode, commit."""
        original = read_marker(self.release, self.after)
        if original is None:
            raise UserError(f"{self.release / self.after} has no marker: run again")
        schema = shard_schema(self.release / self.after)
        left_out = left_out_rows(self.release, original)
        return _commit(self, schema, self._rows(schema, left_out), original.sha256)

    def _rows(self, schema: pa.Schema, left_out: Sequence[Row]) -> Iterator[Row]:
        missing = {row["index"]: row for row in left_out}
        start, stop = self.slots
        before = sum(slot not in missing for slot in range(start))
        originals = islice(_rows_of(self.release / self.after, schema.names), before, None)
        for slot in range(start, stop):
            yield missing[slot] if slot in missing else self._view(next(originals))

    def _view(self, row: Row) -> Row:
        try:
            image = decode_rgb(row["image"]["bytes"])
        except UserError as error:
            raise UserError(
                f"{self.release / self.after}, image {row['image_id']}: {error}"
            ) from None
        pixels = make_view(image, self.resolution, self.crop_rule)
        encoded = encode_image(pixels, "webp-lossless", synthetic=False)
        return row | {"image": encoded, "crop_rule": RECORDED_RULES[self.crop_rule]}


class Unsettled(WrappedJob):
    """A job whose file is there and may have been made from something else: a worker looks."""

    @property
    def fingerprint(self) -> str:
        """One that no marker carries: what stands there does not count."""
        return ""


def plan_jobs(
    name: str,
    source: RealSource,
    files: Sequence[Stretch],
    release: ReleasePath,
    views: Sequence[int],
    crop_rule: CropRule,
) -> list[OriginalJob | ViewJob]:
    """Every file of originals, then the views of each."""
    originals = [
        OriginalJob(name, s, _fingerprint(ORIGINAL, None, s), versions(source, s), release)
        for s in files
    ]
    jobs: list[OriginalJob | ViewJob] = [*originals]
    for resolution in views:
        for job in originals:
            parts = view_parts(job.planned, resolution)
            fingerprint = _fingerprint(str(resolution), crop_rule, job.stretch)
            jobs += [
                ViewJob(
                    job.path,
                    resolution,
                    crop_rule,
                    slots,
                    part if len(parts) > 1 else None,
                    fingerprint,
                    release,
                )
                for part, slots in enumerate(parts)
            ]
    return jobs


def _fingerprint(config: str, crop_rule: CropRule | None, stretch: Stretch) -> str:
    content = {
        "format": FORMAT,
        "config": config,
        "crop_rule": RECORDED_RULES[crop_rule] if crop_rule else None,
        "images": None,
    }
    text = canonical_json(content).replace('"images":null', f'"images":{stretch.identity}')
    return sha256_text(text)


def versions(source: RealSource, stretch: Stretch) -> str:
    """Hash of which images these are, and of what tells that one of them has changed."""
    data = source.splits[stretch.split]
    found = [[data.key(i), data.labels[i], data.version(i)] for i in stretch.rows]
    return sha256_text(canonical_json(found))


def settle(release: ReleasePath, jobs: Sequence[OriginalJob | ViewJob]) -> list[Job]:
    """`jobs`, those of them Unsettled whose file was made from other images than there are now."""
    records = committed_records(release, jobs)
    sources = made_from(release, records)
    settled: dict[str, ShardRecord] = {}
    found: list[Job] = []
    for job in jobs:  # originals come first
        if isinstance(job, OriginalJob):
            wanted: str | None = job.made_from
        else:
            wanted = settled[job.after].sha256 if job.after in settled else None
        if job.path in records and wanted is not None and sources.get(job.path) == wanted:
            settled[job.path] = records[job.path]
            found.append(job)
        else:
            found.append(Unsettled(job) if job.path in records else job)
    return found


def left_out_rows(release: ReleasePath, record: ShardRecord) -> list[Row]:
    """What is written of the images that a file of originals lacks: index is the slot."""
    if not record.rejections_sha256:
        return []
    return read_shard(release / record.rejections_path).to_pylist()  # type: ignore[no-any-return]


def _record_made_from(job: OriginalJob | ViewJob, wanted: str) -> ShardRecord | None:
    found = made_from(job.release, [job.path]).get(job.path)
    return committed_record(job.release, job) if found == wanted else None


def original_row(source: RealSource, stretch: Stretch, slot: int) -> Row:
    """The row, or why there is none."""
    data, i = source.splits[stretch.split], stretch.rows[slot]
    label, key = data.labels[i], data.key(i)
    row: Row = {"class_id": source.classes[label].wnid, "image_id": image_id(stretch.split, key)}
    try:
        content = data.read(i)
        width, height = decode_rgb(content).size
    except OSError as error:
        return row | _left_out(slot, f"cannot be read: {error.strerror}")
    except UserError as error:
        return row | _left_out(slot, str(error))
    row |= {
        "image": content,
        "label": label,
        "original_sha256": sha256_bytes(content),
        "width": width,
        "height": height,
        "crop_rule": "none",
        "tuning": stretch.tuning[slot],
    }
    return row | ({"file_name": key} if has_file_names(source) else {})


def _left_out(slot: int, reason: str) -> Row:
    return {"index": slot, "attempt": 0, "reason": reason, "made": False, "quarantined": True}


def _rows_of(path: ReleasePath, names: Sequence[str]) -> Iterator[Row]:
    for batch in iterate_shard(path, names, READ_ROWS):
        yield from batch.to_pylist()


def _commit(
    job: OriginalJob | ViewJob, schema: pa.Schema, rows: Iterable[Row], source: str
) -> ShardRecord:
    """Write `rows` as they come; what stood at the job's path is gone from the start."""
    started = time.time()
    forget_shard(job.release, job.path)
    class_ids: list[str] = []
    left_out: list[Row] = []

    def write(sink: pa.NativeFile) -> None:
        write_groups(sink, schema, _groups(rows, class_ids, left_out))

    written = write_shard(job.release / job.path, write)
    rejections = rejections_file(left_out) if left_out else None
    return commit_written(
        job.release, job.path, job.fingerprint, written, class_ids, started, rejections, source
    )


def _groups(
    rows: Iterable[Row], class_ids: list[str], left_out: list[Row]
) -> Iterator[dict[str, list[Any]]]:
    """Columns of row groups of ROW_GROUP_BYTES; fills in the classes and those left out."""
    group: list[Row] = []
    size = 0
    for row in rows:
        raise_if_stopped()
        if "reason" in row:
            left_out.append(row)
            continue
        group.append(row)
        class_ids.append(row["class_id"])
        size += len(row["image"])
        if size >= ROW_GROUP_BYTES:
            yield {name: [r[name] for r in group] for name in group[0]}
            group, size = [], 0
    if group:
        yield {name: [r[name] for r in group] for name in group[0]}
