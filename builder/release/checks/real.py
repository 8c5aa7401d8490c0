"""What each shard of a real release ought to be: original bytes kept, views that belong to them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageOps

from builder.imports.jobs import COLUMNS, FILE_NAME
from builder.imports.layout import original_of
from builder.release.checks.shards import (
    Columns,
    ImageRow,
    ShardCheck,
    read_columns,
)
from builder.state import STATE_FILE, RealState, standing_state
from release.files.commit import sha256_bytes
from release.files.storage import ReleasePath, exists
from release.images.decoding import is_marked_synthetic
from release.layout.findings import Problem, differing
from release.layout.manifest import Manifest, ShardRecord
from release.layout.parquet import image_features, table_schema
from release.layout.shard_files import ORIGINAL

SHARED = ("image_id", "label", "class_id", "original_sha256", "width", "height", "tuning")


def import_checks(
    release: ReleasePath, manifest: Manifest
) -> tuple[list[ShardCheck], list[Problem]]:
    """A check of each shard, and what is wrong with the list of them."""
    columns = COLUMNS | (FILE_NAME if manifest.origin.get("file_names") else {})
    schema = table_schema(image_features(manifest.classes, columns), manifest.classes)
    originals = {_stretch(r): r.path for r in manifest.shards if r.config == ORIGINAL}
    turned = "pixel_rule" in manifest.origin  # earlier imports gave sizes before EXIF's turn
    crop_rule = str(manifest.origin.get("crop_rule"))
    wnids = [entry.wnid for entry in manifest.classes]
    checks = []
    problems = [*_state_problems(release, manifest), *_lacking_views(manifest)]
    for record in manifest.shards:
        original = originals.get(_stretch(record))
        if original is None:
            problems.append(Problem(record.path, "has no shard of original images"))
            continue
        if record.config != ORIGINAL and not record.config.isdecimal():
            problems.append(Problem(record.path, "is neither original images nor a view of a size"))
            continue
        view = None if record.config == ORIGINAL else int(record.config)
        rows = _RowCheck(wnids, crop_rule if view else "none", release / original if view else None)
        checks.append(ShardCheck(record, schema, rows, _ImageCheck(view, turned)))
    return checks, problems


def _stretch(record: ShardRecord) -> str:
    """SPLIT-PLACE: which images of the source the shard holds, or some of which."""
    return original_of(record.path)


def _lacking_views(manifest: Manifest) -> list[Problem]:
    """Files of originals of which a configuration does not have as many views."""
    rows: Counter[tuple[str, str]] = Counter()
    for record in manifest.shards:
        rows[record.config, _stretch(record)] += record.rows
    return [
        Problem(record.path, f"has {record.rows} images, {config} {rows[config, _stretch(record)]}")
        for record in manifest.shards
        if record.config == ORIGINAL
        for config in manifest.splits()
        if rows[config, _stretch(record)] != record.rows
    ]


@dataclass(frozen=True)
class _RowCheck:
    """Rows of one shard: labels, crop rule, and for a view the rows of its `original`."""

    wnids: Sequence[str]
    crop_rule: str
    original: "ReleasePath | None"

    def __call__(self, columns: Columns) -> list[str]:
        names = columns["image_id"]
        known = dict(enumerate(self.wnids))
        classes = [known.get(label) for label in columns["label"]]
        rules = [self.crop_rule] * len(names)
        found = [
            *differing("class_id is not the label's", names, columns["class_id"], classes),
            *differing("crop_rule is another", names, columns["crop_rule"], rules),
        ]
        if len(set(names)) != len(names):
            found.append("image_ids stand twice")
        theirs = read_columns(self.original, SHARED) if self.original else None
        if theirs is None:
            return found  # an original, or one whose own check says that it cannot be read
        ids = theirs["image_id"]
        start = ids.index(names[0]) if names and names[0] in ids else 0
        if ids[start : start + len(names)] != names:
            return [*found, "has other rows than its originals"]
        for name in SHARED:
            text = f"{name} is not that of the original"
            found += differing(text, names, columns[name], theirs[name][start : start + len(names)])
        return found


@dataclass(frozen=True)
class _ImageCheck:
    """The bytes as they came if `view` is None, else an image of `view` pixels; never marked.

    turned: whether width and height are those of the image turned as EXIF says.
    """

    view: int | None
    turned: bool

    def __call__(self, row: ImageRow) -> str | None:
        if is_marked_synthetic(row.image):
            return "carries the mark of synthetic media"
        if self.view is not None:
            width, height = row.image.size
            fits = (width, height) == (self.view, self.view)
            return None if fits else f"is {width} x {height}, not {self.view} x {self.view}"
        if sha256_bytes(row.content) != row.columns["original_sha256"]:
            return "is not the original: its SHA-256 is another"
        image = ImageOps.exif_transpose(row.image) if self.turned else row.image
        if image.size != (row.columns["width"], row.columns["height"]):
            return "has another size than width and height say"
        return None


def _state_problems(release: ReleasePath, manifest: Manifest) -> list[Problem]:
    if not exists(release / STATE_FILE):
        return [Problem(STATE_FILE, "is missing")]
    state = standing_state(release, RealState)
    if state is None:
        return [Problem(STATE_FILE, "cannot be read")]
    views = {config for config in manifest.splits() if config != ORIGINAL}
    named = (state.source, state.crop_rule)
    grown = views <= {str(view) for view in state.views}
    if not grown or named != (manifest.origin.get("source"), manifest.origin.get("crop_rule")):
        return [Problem(STATE_FILE, "is of another release than the manifest")]
    return []
