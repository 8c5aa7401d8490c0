"""Repairing and extending a release, with the recipe that its manifest holds."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from builder.builds.build import BuildPlan, plan_build
from builder.builds.planned import (
    PlannedRelease,
    planned_release,
    stated_environments,
    stated_state,
)
from builder.builds.run import Outcome, ReleaseJobs, RunSettings, run_builds
from builder.cluster.worker import Job, WrappedJob
from builder.release.views import forget_outdated, remake_views, split_report
from builder.state import (
    STATE_FILE,
    RealState,
    SyntheticState,
    goes_on_from,
    standing_state,
    write_state,
)
from release.commands.terminal import counted
from release.environment import Environment
from release.errors import UserError
from release.files.commit import remove_temporaries, sha256_file
from release.files.storage import ReleasePath, exists
from release.layout.arrow_index import index_names
from release.layout.findings import Report
from release.layout.image_index import is_index
from release.layout.index_writing import (
    note_images,
    remove_unnoted_indices,
    split_index_name,
)
from release.layout.manifest import Manifest, ShardRecord
from release.layout.readme import README_FILE, contract_problems, remove_documents, write_documents
from release.layout.shard_files import shard_split
from release.layout.training_views import with_views_of

if TYPE_CHECKING:
    from release.real_sources.source import RealSource

OnDone = Callable[[ShardRecord], None]


class Again(WrappedJob):
    """A job to do although its shard seems to be finished."""

    @property
    def fingerprint(self) -> str:
        """One that no marker carries: what stands there does not count."""
        return ""

    def committed(self) -> ShardRecord | None:
        return None


@dataclass(frozen=True)
class Repaired:
    """The manifest afterwards, the shards made again, and which of them came out other."""

    manifest: Manifest
    again: tuple[str, ...]
    changed: tuple[str, ...]


def extension_plan(release: ReleasePath, manifest: Manifest, per_class: int) -> BuildPlan:
    """The release with `per_class` images of each of its classes; UserError if it has them."""
    planned = planned_release(manifest)
    counts = planned.per_class()
    if all(count >= per_class for count in counts.values()):
        raise UserError(
            f"--per-class {per_class}: {release} has {min(counts.values())} images of each class "
            "already; give more"
        )
    return _plan(release, manifest, planned, tuple(counts), per_class)


def _plan(
    release: ReleasePath,
    manifest: Manifest,
    planned: PlannedRelease,
    wnids: Sequence[str],
    per_class: int,
) -> BuildPlan:
    chain = [stage.recipe for stage in planned.stages]
    wanted = [entry for entry in manifest.classes if entry.wnid in set(wnids)]
    # its own classes: the recipe's list may be a file that is not here
    return plan_build(planned.recipe, chain, wanted, per_class, release, manifest.classes)


def repair_release(
    release: ReleasePath, manifest: Manifest, report: Report, settings: RunSettings, on_done: OnDone
) -> Repaired:
    """Make the damaged shards of `report` again, and the children of those that came out other.

    Training views are made whole as well, from what is there then. Raises UserError if recipe,
    checkpoint or source are not at hand, or what is here would make other bytes and mixing is not
    allowed.
    """
    own, damaged_views = split_report(manifest, report)
    again: dict[str, ShardRecord] = {}
    environments: tuple[Environment, ...] = ()
    if set(own.damaged()) - {README_FILE, *manifest.documents}:
        again, environments = _repair_base(release, manifest.base, own, settings, on_done)
    base = manifest.base
    new = replace(base, shards=tuple(again.get(r.path, r) for r in base.shards))
    old = {record.path: record for record in manifest.shards}
    new = with_views_of(new, manifest)
    new, of_views = remake_views(release, new, damaged_views, settings, on_done)
    new = _finish(release, manifest, new, report, environments)
    again |= of_views
    return Repaired(
        manifest=forget_outdated(release, new),
        again=tuple(again),
        changed=tuple(path for path, record in again.items() if record != old.get(path)),
    )


def _repair_base(
    release: ReleasePath, manifest: Manifest, report: Report, settings: RunSettings, on_done: OnDone
) -> tuple[dict[str, ShardRecord], tuple[Environment, ...]]:
    """All but training views: what was made again, and what with."""
    damaged = damaged_shards(manifest, report)
    state: SyntheticState | RealState
    if manifest.kind == "real":
        state, jobs = _import_jobs(release, manifest)
    else:
        state, jobs = _build_jobs(release, manifest)
    by_path = {job.path: job for job in jobs}
    lost = [path for path in damaged if path not in by_path]
    if lost:
        raise UserError(f"{lost[0]} does not follow from what is at hand: it cannot be made again")
    if manifest.kind == "real":
        _require_all_images(release, manifest, jobs, damaged)
    old = {record.path: record for record in manifest.shards}
    again: dict[str, ShardRecord] = {}
    waiting = set(damaged)
    environments: tuple[Environment, ...] = ()
    while waiting:
        todo: list[Job] = [
            Again(job) if job.path in waiting else job for job in jobs if job.path in old
        ]
        (outcome,) = run_builds([ReleaseJobs(release, state, todo)], settings, on_done)
        _require_success(outcome)
        environments = outcome.environments
        made = {record.path: record for record in outcome.records if record.path in waiting}
        again |= made
        changed = {path for path, record in made.items() if record.sha256 != old[path].sha256}
        waiting = {j.path for j in jobs if j.after in changed and j.path in old} - again.keys()
    return again, environments


def _require_all_images(
    release: ReleasePath, manifest: Manifest, jobs: Sequence[Job], damaged: Collection[str]
) -> None:
    """UserError if a file of originals would lose an image that it has: its source has gone bad.

    Asked before anything is written: of a damaged file only its marker may be damaged.
    """
    from builder.imports.bad_images import bad_images_among, first_bad_images
    from builder.imports.jobs import OriginalJob
    from release.real_sources.opening import open_source

    asked = [j.stretch for j in jobs if isinstance(j, OriginalJob) and j.path in damaged]
    known = {(bad["split"], bad["file"]) for bad in manifest.origin.get("left_out", ())}
    source = open_source(str(manifest.origin.get("source")))
    bad = [b for b in bad_images_among(source, asked) if (b.split, b.file) not in known]
    if bad:
        raise UserError(
            f"{release} would lose {counted(len(bad), 'image')}: {first_bad_images(bad)}. Mend "
            "them, or import the release again with --bad-images skip"
        )


def damaged_shards(manifest: Manifest, report: Report) -> list[str]:
    """The shards with a problem of their own or of what stands beside them, parents first."""
    stems = {PurePosixPath(path).with_suffix("") for path in report.damaged()}
    beside = ("markers", "rejections")
    return [
        record.path
        for record in manifest.shards
        if (own := PurePosixPath(record.path).with_suffix("")) in stems
        or any(folder / own in stems for folder in map(PurePosixPath, beside))
    ]


def _build_jobs(release: ReleasePath, manifest: Manifest) -> tuple[SyntheticState, list[Job]]:
    planned = planned_release(manifest)
    _mend_state(release, manifest, planned)
    last = planned.requests[-1]
    plan = _plan(release, manifest, planned, last.classes, last.per_class)
    return plan.state, list(plan.jobs())


def _mend_state(release: ReleasePath, manifest: Manifest, planned: PlannedRelease) -> None:
    """Write build.json from the manifest if it is missing, cannot be read, or says otherwise."""
    stated = stated_state(manifest, planned)
    found = standing_state(release, SyntheticState)
    if found is not None and goes_on_from(found, stated):
        return
    write_state(release, stated)


def _import_jobs(release: ReleasePath, manifest: Manifest) -> tuple[RealState, list[Job]]:
    from builder.imports.release import plan_import
    from release.real_sources.opening import open_source

    name = str(manifest.origin.get("source"))
    source = open_source(name)
    state = _state_of_import(release, manifest, name, source)
    return state, list(plan_import(name, source, release.absolute(), state))


def _state_of_import(
    release: ReleasePath, manifest: Manifest, name: str, source: "RealSource"
) -> RealState:
    """build.json; where it is missing or cannot be read it is written from the manifest."""
    from builder.imports.layout import count_files
    from builder.imports.release import plan_import
    from release.layout.shard_files import ORIGINAL

    state = standing_state(release, RealState)
    if state is not None:
        return state
    manifest = manifest.base
    splits = Counter(shard_split(r.path) for r in manifest.shards if r.path.startswith(ORIGINAL))
    stated = RealState(
        source=name,
        crop_rule=str(manifest.origin.get("crop_rule")),
        views=tuple(sorted(int(config) for config in manifest.splits() if config != ORIGINAL)),
        files=count_files(source, splits),
        environments=stated_environments(manifest),
    )
    planned = {job.path for job in plan_import(name, source, release.absolute(), stated)}
    if not {record.path for record in manifest.shards} <= planned:
        raise UserError(
            f"{STATE_FILE} of {release} cannot be restored: {name} holds other images now"
        )
    write_state(release, stated)
    return stated


def _require_success(outcome: Outcome) -> None:
    if outcome.quarantined:
        first = outcome.quarantined[0]
        raise UserError(f"{first.path} could not be made again: {first.reason}")


def _stands(release: ReleasePath, manifest: Manifest, document: str) -> bool:
    """Whether it is right after all: a load contract may only have lacked a shard to compare."""
    if is_index(document):
        return False
    path = release / document
    if not exists(path) or sha256_file(path) != manifest.documents.get(document):
        return False
    return document != README_FILE or not contract_problems(release, manifest)


def _note_images_anew(release: ReleasePath, manifest: Manifest, report: Report) -> None:
    """Where an index is what was written and its shards hold something else: what they hold."""
    damaged = {
        name
        for name in report.damaged()
        if is_index(name)
        and exists(release / name)
        and sha256_file(release / name) == manifest.documents.get(name)
    }
    if not damaged or not isinstance(release, Path):
        return
    wrong = {
        (config, split)
        for config, splits in manifest.splits().items()
        for split in splits
        if split_index_name(manifest, config, split) in damaged
    }
    for record in manifest.shards:
        if (record.config, record.split) in wrong:
            note_images(release, record)


def _finish(
    release: ReleasePath,
    manifest: Manifest,
    new: Manifest,
    report: Report,
    environments: tuple[Environment, ...],
) -> Manifest:
    """Manifest and README, of `new` shards now; both are left alone if they are right.

    Where shards have other bytes, what render-card wrote about the old ones goes.
    """
    remove_temporaries(release)
    if environments and manifest.kind == "synthetic":
        made = [{"device": e.device, "versions": dict(e.versions)} for e in environments]
        new = replace(new, origin=new.origin | {"environments": made})
    _note_images_anew(release, new, report)
    documents = (README_FILE, *new.documents)
    gone = {n for n in documents if n in report.damaged() and not _stands(release, new, n)}
    lost = gone & {README_FILE, *index_names(new)} or any(map(is_index, gone))
    if new.shards != manifest.shards or lost:
        kept = {n: sha256 for n, sha256 in new.documents.items() if n not in gone}
        kept = kept if new.shards == manifest.shards else {}
        new = replace(new, documents=kept | write_documents(release, new))
    if new != manifest:
        new.write(release)
        remove_documents(release, manifest.documents.keys() - new.documents.keys())
        remove_unnoted_indices(release, new)
    return new
