"""Importing real data as a release: original bytes, and views at fixed resolutions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from builder.builds.finish import finish_release
from builder.builds.run import Outcome, ReleaseJobs, RunSettings, run_builds
from builder.cluster.worker import Job
from builder.imports.bad_images import (
    BAD_IMAGES_FILE,
    BadImage,
    bad_images,
    bad_images_among,
    first_bad_images,
    note_bad_images,
)
from builder.imports.jobs import OriginalJob, Unsettled, ViewJob, plan_jobs, settle
from builder.imports.layout import count_files, has_file_names, row_order, stretches
from builder.imports.tuning import TUNING_RULE
from builder.shards.view_shard import delete_outdated
from builder.state import RealState, read_state
from release.errors import UserError
from release.files.commit import delete_file, delete_folder
from release.files.storage import ReleasePath, list_files, release_name
from release.images.crop_rules import RECORDED_RULES, CropRule
from release.images.decoding import PIXEL_RULE
from release.layout.manifest import MANIFEST_FILE, Manifest, ShardRecord, standing_manifest
from release.layout.readme import remove_documents
from release.layout.shard_commit import forget_shard, marker_name
from release.layout.shard_files import ORIGINAL, is_shard
from release.layout.training_views import with_views_of
from release.real_sources.opening import open_source
from release.real_sources.source import RealSource

EARLIER = "_earlier"  # a folder; no view can be called so
# as OriginalJob and ViewJob name their files
OWN_NAME = re.compile(
    rf"({ORIGINAL}|[0-9]+)/[^/]+-[0-9]{{8}}(p[0-9]{{3}})?-[0-9a-f]{{10}}\.parquet"
)
BadImages = Literal["stop", "skip"]


def import_real(
    name: str,
    release: ReleasePath,
    views: Sequence[int],
    crop_rule: CropRule,
    settings: RunSettings,
    on_done: Callable[[ShardRecord], None],
    on_bad_images: BadImages = "stop",
) -> Outcome:
    """Import every split of `name` into `release`; rerun it to go on, or to follow its changes.

    Raises UserError, when all images are read, if some cannot be imported and `on_bad_images` is
    "stop": there is no manifest then, and a rerun reads only what has changed. A finished release
    stays as it is.
    """
    source = open_source(name)
    state = _plan_state(name, source, release, views, crop_rule)
    planned = plan_import(name, source, release.absolute(), state)
    standing = standing_manifest(release)
    jobs = settle(release, planned, standing.shards if standing else ())
    if on_bad_images == "stop":
        _require_good_changes(release, source, jobs)
    earlier = standing or _left_by_a_killed_one(release)
    _forget_changed(release, standing, jobs)
    (outcome,) = run_builds([ReleaseJobs(release, state, jobs)], settings, on_done)
    derived = earlier.training_views if earlier else ()
    _forget_unplanned(release, jobs, derived)
    originals = [job for job in planned if isinstance(job, OriginalJob)]
    bad = bad_images(release, source, originals, outcome.records)
    note_bad_images(release, bad)
    if bad and on_bad_images == "stop":
        raise _bad_images_error(release, source, bad)
    if not outcome.records:
        return outcome
    _require_images(release, source, bad)
    manifest = Manifest(
        name=release_name(release),
        kind="real",
        dataset=source.name,
        regime=None,
        license=source.license,
        classes=source.classes,
        origin=_origin(name, source, state, bad) | outcome.origin(),
        shards=outcome.records,
    )
    manifest = with_views_of(manifest, earlier)
    delete_outdated(release, manifest, derived)
    finished = finish_release(release, manifest)
    delete_folder(release / EARLIER)
    return replace(outcome, manifest=finished)


def _left_by_a_killed_one(release: ReleasePath) -> Manifest | None:
    """The manifest that a killed re-import took away, with those files of its training views that
    are still there, marked or not, and no others."""
    earlier = standing_manifest(release / EARLIER)
    if earlier is None:
        return None
    sizes, views = list_files(release), earlier.training_views
    there = (r for r in earlier.shards if r.config in views and sizes.get(r.path) == r.bytes)
    return replace(earlier, shards=tuple(there))


def _plan_state(
    name: str, source: RealSource, release: ReleasePath, views: Sequence[int], crop_rule: CropRule
) -> RealState:
    """What the folder is going to hold, earlier views included; UserError if it has other data."""
    earlier = require_rule(release, crop_rule)
    if earlier is None:
        recorded = RECORDED_RULES[crop_rule]
        return RealState(name, recorded, _joined(None, views), count_files(source, {}))
    files = count_files(source, earlier.files)
    state = replace(earlier, source=name, views=_joined(earlier, views), files=files)
    if earlier.source != name:
        _require_same_images(release, earlier, plan_import(name, source, release, state))
    return state


def require_rule(release: ReleasePath, crop_rule: CropRule | None) -> RealState | None:
    """What the folder says that it holds, None for a new one.

    UserError if that is no import, or has views by another rule. crop_rule None: any rule will do.
    """
    earlier = read_state(release, RealState)
    recorded = RECORDED_RULES[crop_rule] if crop_rule else None
    if earlier is not None and recorded not in (None, earlier.crop_rule):
        raise UserError(
            f"{release} has views by the rule {earlier.crop_rule}, asked for is {recorded}; name "
            "another --out"
        )
    return earlier


def all_views(release: ReleasePath, views: Sequence[int]) -> tuple[int, ...]:
    """Those that the folder is going to hold: asked for now, or before; ascending."""
    return _joined(read_state(release, RealState), views)


def _joined(earlier: RealState | None, views: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({*(earlier.views if earlier else ()), *views}))


def _require_same_images(
    release: ReleasePath, earlier: RealState, planned: Sequence[OriginalJob | ViewJob]
) -> None:
    """UserError if what stands there is of other images: the source may only have been moved."""
    paths = {job.path for job in planned}
    for name in list_files(release):
        if is_shard(name) and name.startswith(f"{ORIGINAL}/") and name not in paths:
            raise UserError(
                f"{release} holds other images, of {earlier.source}; name another --out"
            )


def plan_import(
    name: str, source: RealSource, release: ReleasePath, state: RealState
) -> list[OriginalJob | ViewJob]:
    """One job a file: the original bytes, then each view, of each stretch of each split."""
    rule = recorded_rule(state.crop_rule)
    files = list(stretches(source, state.files))
    return plan_jobs(name, source, files, release, state.views, rule)


def recorded_rule(recorded: str) -> CropRule:
    """The rule that a release says it was made by; UserError if there is no such rule any more."""
    for rule, name in RECORDED_RULES.items():
        if name == recorded:
            return rule
    raise UserError(f"no view is made by the rule {recorded!r} any more: import into another --out")


def _require_good_changes(release: ReleasePath, source: RealSource, jobs: Sequence[Job]) -> None:
    """UserError if files of a finished release would change for images that cannot be imported.

    Such files are read here and once more by a worker: a finished release is worth that.
    """
    standing = standing_manifest(release)
    if standing is None:
        return
    there = {(shard.path, shard.fingerprint) for shard in standing.shards}
    bare = [job.job if isinstance(job, Unsettled) else job for job in jobs]
    changed = [
        original.stretch
        for job, original in zip(jobs, bare, strict=True)
        if isinstance(original, OriginalJob) and (job.path, job.fingerprint) not in there
    ]
    bad = bad_images_among(source, changed)
    if bad:
        note_bad_images(release, bad)
        raise _bad_images_error(release, source, bad)


def _forget_changed(release: ReleasePath, standing: Manifest | None, jobs: Sequence[Job]) -> None:
    """A finished release of which files change is unfinished: its manifest goes, and its card.

    It stays in EARLIER for as long: the views that were made of it are known by it alone.
    """
    if standing is None:
        return
    wanted = {(job.path, job.fingerprint) for job in jobs}
    if all((shard.path, shard.fingerprint) in wanted for shard in standing.base.shards):
        return
    standing.write(release / EARLIER)
    delete_file(release / MANIFEST_FILE)
    remove_documents(release, standing.documents)


def _forget_unplanned(release: ReleasePath, jobs: Sequence[Job], derived: Sequence[str]) -> None:
    """Delete files of images that the source has no longer; not of `derived` configurations.

    Also one that a killed import had not marked yet; other names without a marker are not ours.
    """
    planned = {job.path for job in jobs}
    files = list_files(release)
    for name in sorted(files):
        if name.split("/")[0] in derived:
            continue
        ours = marker_name(name) in files or OWN_NAME.fullmatch(name)
        if is_shard(name) and name not in planned and ours:
            forget_shard(release, name)


def _bad_images_error(
    release: ReleasePath, source: RealSource, bad: Sequence[BadImage]
) -> UserError:
    total = sum(len(data.labels) for data in source.splits.values())
    return UserError(
        f"{len(bad):,} of {total:,} images cannot be imported, all of them in "
        f"{release / BAD_IMAGES_FILE}: {first_bad_images(bad)}. Mend or remove them and run again, "
        "or leave them out with --bad-images skip"
    )


def _require_images(release: ReleasePath, source: RealSource, bad: Sequence[BadImage]) -> None:
    """UserError for a split of which every image is bad: load_dataset reads no empty split."""
    for split, data in source.splits.items():
        if 0 < len(data.labels) == sum(b.split == split for b in bad):
            raise UserError(
                f"no image of {split} can be imported, see {release / BAD_IMAGES_FILE}: mend them, "
                "or move the split away, and run again"
            )


def _origin(
    name: str, source: RealSource, state: RealState, bad: Sequence[BadImage]
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "source": name,
        "crop_rule": state.crop_rule,
        "tuning_rule": TUNING_RULE,
        "pixel_rule": PIXEL_RULE,
        "row_order": row_order(source),
        "file_names": has_file_names(source),
        **source.origin(),
    }
    if source.revision is not None:
        content["revision"] = source.revision
    if bad:
        content["left_out"] = [
            {"split": b.split, "file": b.file, "image_id": b.image_id, "reason": b.reason}
            for b in bad
        ]
    return content
