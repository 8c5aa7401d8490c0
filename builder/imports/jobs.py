"""The jobs of an import: a file of images as they came, and files of views made from that file.

A source is read once, and each of its images is decoded once: whoever writes originals makes the
views beside them. Views that are asked for later, or whose worker was killed, are made from the
file of originals, so both always have the same bytes. A file counts as done while what it was made
from is as it was: of originals the versions of the source's images, of views the hash of their
originals.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
from PIL import Image

from builder.cluster.worker import Job, WrappedJob
from builder.imports.layout import Stretch, has_file_names, image_id, view_parts
from builder.imports.row_file import Row, RowFile
from release.errors import UserError
from release.files.commit import (
    canonical_json,
    sha256_bytes,
    sha256_text,
)
from release.files.storage import ReleasePath
from release.images.crop_rules import RECORDED_RULES, CropRule
from release.images.decoding import decode_rgb
from release.images.encoding import encode_image
from release.images.views import make_view
from release.layout.manifest import ShardRecord
from release.layout.parquet import image_features, table_schema
from release.layout.shard_commit import committed_record, committed_records, made_from, read_marker
from release.layout.shard_files import FORMAT, ORIGINAL, iterate_shard, read_shard, shard_schema
from release.real_sources.opening import open_source
from release.real_sources.source import RealSource, cannot_be_read

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
DECODED_AHEAD = 2  # runs beside the one that is written: a worker left alone has cores to spare
RUN_IMAGES, RUN_BYTES = 16, 2 << 20  # decoded in one go by a thread: whichever is reached first


@dataclass(frozen=True)
class OriginalJob:
    """Images of one split as they came: one Parquet file. Those that cannot be read are left out.

    made_from: versions of the source's images when this was planned. views: made along with it, in
    the order of their slots, unless they stand there; each image is decoded once for all of them.
    """

    source: str
    stretch: Stretch
    fingerprint: str
    made_from: str
    release: ReleasePath
    views: "tuple[ViewJob, ...]" = ()
    after: None = None
    priority: int = 1  # bad images are known before any view is made of a file that stands

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
        """Read, decode, view; commit the file, then its views, which count by its hash."""
        source = self._open()
        columns = COLUMNS | (FILE_NAME if has_file_names(source) else {})
        schema = table_schema(image_features(source.classes, columns), source.classes)
        with ExitStack() as files:
            own = files.enter_context(RowFile(self, schema))
            views = self._write(source, own, files, schema)
        record = own.commit(self.made_from)
        for view in views:
            view.commit(record.sha256)
        return record

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

    def _write(
        self, source: RealSource, own: RowFile, files: ExitStack, schema: pa.Schema
    ) -> list[RowFile]:
        """All rows of the file and of the views made along, which are returned, finished."""
        missing = [view for view in self.views if read_marker(self.release, view.path) is None]
        along = {view: RowFile(view, schema) for view in missing}
        for slot, (row, of_views) in enumerate(self._rows(source, missing)):
            own.add(row)
            for view, view_row in of_views.items():
                if slot == view.slots[0]:
                    files.enter_context(along[view])
                along[view].add(view_row)
                if slot == view.slots[1] - 1:
                    along[view].finish()
        if not self._is_as_planned(source):  # asked last, so that it is true of all that was read
            raise UserError(f"{self.source} was changed while it was imported: run again")
        return list(along.values())

    def _rows(
        self, source: RealSource, views: Sequence["ViewJob"]
    ) -> Iterator[tuple[Row, dict["ViewJob", Row]]]:
        """The row of each slot, and those of views; the next ones are decoded meanwhile."""
        ahead: deque[Future[list[tuple[Row, dict[ViewJob, Row]]]]] = deque()
        with ThreadPoolExecutor(DECODED_AHEAD) as pool:
            for start, contents in self._read(source):
                ahead.append(pool.submit(self._rows_of, source, start, contents, views))
                if len(ahead) > DECODED_AHEAD:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()

    def _read(self, source: RealSource) -> Iterator[tuple[int, list[bytes | UserError]]]:
        """The encoded images in runs, with the slot that each begins at."""
        start, run, size = 0, list[bytes | UserError](), 0
        for slot in range(self.planned):
            content = read_image(source, self.stretch, slot)
            run.append(content)
            size += 0 if isinstance(content, UserError) else len(content)
            if len(run) >= RUN_IMAGES or size >= RUN_BYTES or slot == self.planned - 1:
                yield start, run
                start, run, size = slot + 1, [], 0

    def _rows_of(
        self,
        source: RealSource,
        start: int,
        contents: Sequence[bytes | UserError],
        views: Sequence["ViewJob"],
    ) -> list[tuple[Row, dict["ViewJob", Row]]]:
        """Of a run that begins at slot `start`."""
        found = []
        for slot, content in enumerate(contents, start):
            row, image = original_row(source, self.stretch, slot, content)
            wanted = [view for view in views if view.slots[0] <= slot < view.slots[1]]
            of_views = {view: row if image is None else view.row(row, image) for view in wanted}
            found.append((row, of_views))
        return found


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
        with RowFile(self, schema) as file:
            for row in self._rows(schema, left_out):
                file.add(row)
        return file.commit(original.sha256)

    def row(self, row: Row, image: Image.Image) -> Row:
        """The row of the view of `image`, of which the file of originals has `row`."""
        pixels = make_view(image, self.resolution, self.crop_rule)
        encoded = encode_image(pixels, "webp-lossless", synthetic=False)
        return row | {"image": encoded, "crop_rule": RECORDED_RULES[self.crop_rule]}

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
        return self.row(row, image)


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
    of_views = [
        [_view_jobs(job, resolution, crop_rule) for job in originals] for resolution in views
    ]
    if isinstance(release, Path):  # behind a URL a whole file is in memory: one at a time
        along = zip(*of_views, strict=True) if of_views else [()] * len(originals)
        originals = [
            replace(job, views=tuple(chain(*parts)))
            for job, parts in zip(originals, along, strict=True)
        ]
    return [*originals, *chain(*chain(*of_views))]


def _view_jobs(original: OriginalJob, resolution: int, crop_rule: CropRule) -> list[ViewJob]:
    """Of one file of originals, in the order of their slots."""
    parts = view_parts(original.planned, resolution)
    fingerprint = _fingerprint(str(resolution), crop_rule, original.stretch)
    return [
        ViewJob(
            original.path,
            resolution,
            crop_rule,
            slots,
            part if len(parts) > 1 else None,
            fingerprint,
            original.release,
        )
        for part, slots in enumerate(parts)
    ]


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


def settle(
    release: ReleasePath, jobs: Sequence[OriginalJob | ViewJob], listed: Sequence[ShardRecord]
) -> list[Job]:
    """`jobs`, those of them Unsettled whose file was made from other images than there are now.

    listed: the files of the manifest that stands; one of them may have lost its marker.
    """
    planned = {job.path for job in jobs}
    records = {record.path: record for record in listed if record.path in planned}
    records |= committed_records(release, jobs)
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


def read_image(source: RealSource, stretch: Stretch, slot: int) -> bytes | UserError:
    """The encoded image; or why there is none. Sources are read in one thread.

    OSError where reading it again may help: what is written of an image is not asked again.
    """
    try:
        return source.splits[stretch.split].read(stretch.rows[slot])
    except OSError as error:
        if (reason := cannot_be_read(error)) is None:
            key = source.splits[stretch.split].key(stretch.rows[slot])
            raise OSError(error.errno, error.strerror, key) from None  # by itself it names no file
        return UserError(f"cannot be read: {reason}")
    except UserError as error:
        return error


def original_row(
    source: RealSource, stretch: Stretch, slot: int, content: bytes | UserError
) -> tuple[Row, Image.Image | None]:
    """The row of an image that read_image read, and the image in RGB; or why there is none."""
    data, i = source.splits[stretch.split], stretch.rows[slot]
    label, key = data.labels[i], data.key(i)
    row: Row = {"class_id": source.classes[label].wnid, "image_id": image_id(stretch.split, key)}
    try:
        if isinstance(content, UserError):
            raise content
        image = decode_rgb(content, real=True)
    except UserError as error:
        return row | _left_out(slot, str(error)), None
    row |= {
        "image": content,
        "label": label,
        "original_sha256": sha256_bytes(content),
        "width": image.width,
        "height": image.height,
        "crop_rule": "none",
        "tuning": stretch.tuning[slot],
    }
    return row | ({"file_name": key} if has_file_names(source) else {}), image


def _left_out(slot: int, reason: str) -> Row:
    return {"index": slot, "attempt": 0, "reason": reason, "made": False, "quarantined": True}


def _rows_of(path: ReleasePath, names: Sequence[str]) -> Iterator[Row]:
    for batch in iterate_shard(path, names, READ_ROWS):
        yield from batch.to_pylist()
