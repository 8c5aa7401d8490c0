"""The images of a source that cannot be imported: which they are and why, for people."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from builder.imports.jobs import OriginalJob, left_out_rows, original_row, read_image
from builder.imports.layout import Stretch
from release.errors import UserError
from release.files.commit import delete_file, write_atomically
from release.files.storage import ReleasePath
from release.layout.manifest import ShardRecord
from release.real_sources.source import RealSource

BAD_IMAGES_FILE = "bad-images.csv"
SHOWN = 5


@dataclass(frozen=True)
class BadImage:
    """file: as the source names it. reason: a predicate, such as "cannot be decoded: …"."""

    split: str
    file: str
    image_id: str
    reason: str

    def __str__(self) -> str:
        return f"image {self.file} of {self.split} {self.reason}"


def bad_images(
    release: ReleasePath,
    source: RealSource,
    jobs: Sequence[OriginalJob],
    records: Sequence[ShardRecord],
) -> list[BadImage]:
    """All that the finished files of originals lack, sorted by split and file."""
    stretches = {job.path: job.stretch for job in jobs}
    found = []
    for record in records:
        if (stretch := stretches.get(record.path)) is None:
            continue
        data = source.splits[stretch.split]
        for row in left_out_rows(release, record):
            key = data.key(stretch.rows[row["index"]])
            found.append(BadImage(stretch.split, key, row["image_id"], row["reason"]))
    return sorted(found, key=lambda bad: (bad.split, bad.file))


def bad_images_among(source: RealSource, stretches: Sequence[Stretch]) -> list[BadImage]:
    """Those of the images of `stretches` that cannot be imported now, sorted by split and file."""
    found = []
    for stretch in stretches:
        data = source.splits[stretch.split]
        for slot, i in enumerate(stretch.rows):
            try:
                content = read_image(source, stretch, slot)
            except OSError as error:
                raise UserError(
                    f"{source.name}: image {data.key(i)} of {stretch.split} cannot be read now "
                    f"({error.strerror}): run again"
                ) from None
            row, _ = original_row(source, stretch, slot, content)
            if "reason" in row:
                key = data.key(i)
                found.append(BadImage(stretch.split, key, row["image_id"], row["reason"]))
    return sorted(found, key=lambda bad: (bad.split, bad.file))


def note_bad_images(release: ReleasePath, found: Sequence[BadImage]) -> None:
    """Write BAD_IMAGES_FILE; none where there are none."""
    if not found:
        delete_file(release / BAD_IMAGES_FILE)
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["split", "file", "image_id", "reason"])
    rows.writerows([bad.split, bad.file, bad.image_id, bad.reason] for bad in found)
    write_atomically(release / BAD_IMAGES_FILE, text.getvalue().encode())


def first_bad_images(found: Sequence[BadImage]) -> str:
    """The first SHOWN, and how many more there are."""
    shown = "; ".join(map(str, found[:SHOWN]))
    return shown if len(found) <= SHOWN else f"{shown}; and {len(found) - SHOWN:,} more"
