"""Training views: a configuration of small JPEGs that is derived from another one of the release.

A training reads its images many times; decoding a large lossless image each time costs more than
the network does. A view holds the same rows in the same files, ids and all, each image resized by
SHORT_SIDE and stored as JPEG. It follows from the files that the manifest lists and the settings
that it states: a file's fingerprint covers the hash of the file it is made from. So the files of a
view that are there tell what it lacks, and a release that grows leaves its views behind until
`release view` is run again.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from release.errors import UserError, unknown_name
from release.files.commit import canonical_json, sha256_text
from release.images.crop_rules import MOST_SIDE
from release.images.decoding import decode_rgb
from release.images.encoding import encode_jpeg, jpeg_codec
from release.images.views import SHORT_SIDE, shrink
from release.layout.manifest import Manifest, ShardRecord
from release.layout.origin import TAKEN, Subsampling, ViewName
from release.layout.shard_files import (
    FORMAT,
    ORIGINAL,
    shard_format,
    shard_name,
)


@dataclass(frozen=True)
class TrainingView:
    """What decides a view's bytes beside the images, as the manifest states it.

    source: the configuration it is made from. size: of the short side, in pixels; smaller images
    stay as they are. quality: libjpeg's. codec: the encoder's versions.
    """

    name: str
    source: str
    size: int
    quality: int
    subsampling: Subsampling
    codec: str
    rule: str = SHORT_SIDE
    encoding: Literal["jpeg"] = "jpeg"

    def __str__(self) -> str:
        return (
            f"derived from {self.source}: short side {self.size} px, JPEG quality {self.quality}, "
            f"{self.subsampling}, by {self.codec}"
        )

    def encoded(self, content: bytes, *, synthetic: bool) -> bytes:
        """An image of the source as the view holds it; UserError if it cannot be decoded."""
        image = shrink(decode_rgb(content), self.size)
        return encode_jpeg(image, self.quality, self.subsampling, synthetic=synthetic)


def new_view(
    manifest: Manifest,
    size: int,
    quality: int,
    subsampling: Subsampling,
    source: str | None,
    name: str | None,
) -> TrainingView:
    """The view that was asked for, made by the codec that is here.

    source: by default real originals, else the highest resolution. name: by default SIZE-jpeg.
    UserError for settings out of range, and for a name that another configuration has.
    """
    if not 1 <= size <= MOST_SIDE:
        raise UserError(f"--size {size}: give 1 to {MOST_SIDE} px")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality {quality}: give 1 to 100")
    configs = list(manifest.base.splits())
    source = source or (ORIGINAL if ORIGINAL in configs else max(configs, key=_side))
    if source not in configs:
        raise unknown_name(f"configuration of {manifest.name}", source, configs)
    name = name or f"{size}-jpeg"
    if not re.fullmatch(ViewName, name) or name in TAKEN.union(configs):
        raise UserError(
            f"--name {name!r}: give letters, digits, _ and -, such as {size}-jpeg; no number "
            f"alone, no configuration that there is ({', '.join(configs)}), no folder of a release"
        )
    if source.isdecimal() and int(source) < size:
        raise UserError(f"--size {size}: images of {source} are smaller; views are never enlarged")
    view = TrainingView(name, source, size, quality, subsampling, jpeg_codec())
    for stated in stated_views(manifest):
        if stated.name == name and replace(stated, codec=view.codec) != view:
            raise UserError(
                f"{manifest.name} has a view {name}, {stated}: ask for the same, or give the new "
                "one a name of its own with --name"
            )
    return view


def view_fingerprint(view: TrainingView, original: ShardRecord) -> str:
    """What decides the file that is made of `original`."""
    content = {"format": FORMAT, "view": asdict(view), "images": original.sha256}
    return sha256_text(canonical_json(content))


def view_path(view: TrainingView, original: ShardRecord) -> str:
    """As `original` is named, with the view's fingerprint in place of its own."""
    place = PurePosixPath(original.path).stem.split("-", 1)[1].rsplit("-", 1)[0]
    name = f"{place}-{view_fingerprint(view, original)[:10]}"
    return shard_name(view.name, original.split, name, shard_format(original.path))


def _side(config: str) -> int:
    return int(config) if config.isdecimal() else 0


def stated_views(manifest: Manifest) -> list[TrainingView]:
    """The views that the release has, as its manifest states them."""
    return [TrainingView(**view) for view in manifest.origin.get("training_views", ())]


def view_of(manifest: Manifest, config: str) -> TrainingView | None:
    """The view of that name, None for a configuration that is none."""
    return next((view for view in stated_views(manifest) if view.name == config), None)


def _planned_paths(manifest: Manifest, view: TrainingView) -> set[str]:
    return {view_path(view, record) for record in manifest.shards if record.config == view.source}


def with_view(manifest: Manifest, view: TrainingView, records: Sequence[ShardRecord]) -> Manifest:
    """The manifest of the release that has `view`, in these files, in place of one of its name."""
    views = {stated.name: stated for stated in stated_views(manifest)} | {view.name: view}
    files = {
        name: [record for record in manifest.shards if record.config == name] for name in views
    } | {view.name: list(records)}
    origin = manifest.origin | {"training_views": [asdict(one) for one in views.values()]}
    of_views = [record for own in files.values() for record in own]
    base = [record for record in manifest.shards if record.config not in views]
    return replace(manifest, origin=origin, shards=(*base, *of_views))


def with_views_of(manifest: Manifest, earlier: Manifest | None) -> Manifest:
    """`manifest`, of the release as it is now, with the views that it had.

    Of each view those files whose source is listed as it was: what is new it lacks.
    """
    if earlier is None or manifest.training_views:
        return manifest
    for view in stated_views(earlier):
        planned = _planned_paths(manifest, view)
        records = [r for r in earlier.shards if r.config == view.name and r.path in planned]
        if planned:
            manifest = with_view(manifest, view, records)
    return manifest


def lagging(manifest: Manifest) -> dict[str, str]:
    """What each view lacks, by its name: a line; nothing of a view that is whole."""
    listed = {record.path for record in manifest.shards}
    found = {}
    for view in stated_views(manifest):
        planned = _planned_paths(manifest, view)
        if missing := len(planned - listed):
            found[view.name] = (
                f"lags behind {view.source}: {missing:,} of its {len(planned):,} files have no "
                f"view yet; run `release view RELEASE {view_options(view)}`"
            )
    return found


def require_whole(manifest: Manifest, config: str) -> None:
    """UserError if that is a training view which lags behind the release."""
    if config in manifest.training_views and (behind := lagging(manifest).get(config)):
        raise UserError(f"training view {config} of {manifest.name} {behind}")


def view_options(view: TrainingView) -> str:
    """The options of `release view` that ask for it."""
    return (
        f"--size {view.size} --quality {view.quality} --subsampling {view.subsampling} "
        f"--from {view.source} --name {view.name}"
    )
