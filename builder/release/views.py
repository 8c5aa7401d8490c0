"""Making a training view of a finished release, on a cluster, and making damaged ones again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from builder.builds.finish import finish_release
from builder.builds.run import OnDone, ReleaseJobs, RunSettings, run_builds
from builder.shards.view_shard import delete_outdated, plan_view
from builder.state import STATE_FILE
from release.errors import UserError
from release.files.storage import ReleasePath, exists
from release.layout.findings import Report
from release.layout.manifest import Manifest, ShardRecord
from release.layout.readme import names_each_file, write_documents
from release.layout.shard_commit import forget_shard
from release.layout.training_views import TrainingView, lagging, stated_views, with_view


def make_view(
    release: ReleasePath,
    manifest: Manifest,
    view: TrainingView,
    settings: RunSettings,
    on_done: OnDone,
) -> Manifest:
    """Make what the view lacks, then list it in manifest and README. Rerun it to go on.

    Files that are no longer of the view go, once the manifest does not list them. Raises UserError
    if a file kept failing, after all others are made; the manifest is as before then.
    """
    records, _ = _records(release, manifest, view, settings, on_done)
    return forget_outdated(
        release, finish_release(release, with_view(manifest, view, list(records.values())))
    )


def _records(
    release: ReleasePath,
    manifest: Manifest,
    view: TrainingView,
    settings: RunSettings,
    on_done: OnDone,
) -> tuple[dict[str, ShardRecord], tuple[str, ...]]:
    """The record of each file of the view, and paths of those that had to be made."""
    # Any environment will do: what decides a view's bytes, its codec, each job looks at.
    settings = replace(settings, cluster=settings.cluster.without_gpus(), allow_mixed=True)
    asked = ReleaseJobs(
        release=release,
        state=None,
        jobs=plan_view(release.absolute(), manifest, view),
        config=view.name,
        announce=lambda _: _require_state(release),
    )
    (outcome,) = run_builds([asked], settings, on_done)
    if failures := outcome.quarantined:
        raise UserError(
            f"{len(failures)} of {len(failures) + len(outcome.made)} files kept failing; "
            f"{failures[0].path}: {failures[0].reason}; the others are done: rerun to try again"
        )
    return {record.path: record for record in outcome.records}, outcome.made


def _require_state(release: ReleasePath) -> None:
    """UserError where workers cannot see that they share the release's storage."""
    if not exists(release / STATE_FILE):
        raise UserError(f"{release} lacks {STATE_FILE}: run `release repair` first")


def forget_outdated(release: ReleasePath, finished: Manifest) -> Manifest:
    """Delete files of views that the manifest lists no longer; the manifest that stands then."""
    deleted = delete_outdated(release, finished, finished.training_views)
    if not deleted and not names_each_file(release):
        return finished
    # The README had to name each file while others stood beside them.
    documents = finished.documents | write_documents(release, finished)
    new = replace(finished, documents=documents)
    new.write(release)
    return new


def split_report(manifest: Manifest, report: Report) -> tuple[Report, dict[str, list[str]]]:
    """The report without what it says of training views, and by view the damaged files of those.

    A view that only lacks files has no damaged ones.
    """
    by_view: dict[str, list[str]] = {}
    stems = {r.path.rsplit(".", 1)[0]: r for r in manifest.shards}
    rest = []
    for problem in report.problems:
        stem = problem.path.rsplit(".", 1)[0].removeprefix("markers/")
        record = stems.get(stem)
        name = record.config if record else problem.path
        if name not in manifest.training_views:
            rest.append(problem)
            continue
        damaged = by_view.setdefault(name, [])
        if record and record.path not in damaged:
            damaged.append(record.path)
    return replace(report, problems=tuple(rest)), by_view


def remake_views(
    release: ReleasePath,
    manifest: Manifest,
    damaged: Mapping[str, Sequence[str]],
    settings: RunSettings,
    on_done: OnDone,
) -> tuple[Manifest, dict[str, ShardRecord]]:
    """Make damaged files of views again and those that they lack.

    manifest: whose other files are whole. Returns it with the views whole, and what was made.
    """
    made: dict[str, ShardRecord] = {}
    behind = lagging(manifest)
    for view in stated_views(manifest):
        if view.name not in damaged and view.name not in behind:
            continue
        for path in damaged.get(view.name, ()):
            forget_shard(release, path)
        records, again = _records(release, manifest, view, settings, on_done)
        manifest = with_view(manifest, view, list(records.values()))
        made |= {path: records[path] for path in again}
    return manifest, made
