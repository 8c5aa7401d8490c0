"""Making a training view of a finished release, on a cluster, and making damaged ones again."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from builder.builds.growth import keep_loadable, known_records
from builder.builds.quarantine import clear_quarantine, quarantine_shard
from builder.builds.run import RunSettings
from builder.cluster.cluster import open_cluster
from builder.cluster.engine import run_jobs
from builder.cluster.worker import Failure, Terms
from builder.shards.view_shard import ViewShardJob, delete_outdated, plan_view
from builder.standing.state import STATE_FILE
from release.commands.interrupt import interruptible
from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import ReleasePath
from release.layout.findings import Report
from release.layout.manifest import Manifest, ShardRecord
from release.layout.markers import forget_shard
from release.layout.readme import names_each_file, write_documents
from release.layout.training_views import TrainingView, lagging, stated_views, with_view

OnDone = Callable[[ShardRecord], None]


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
    from builder.builds.build import finish_release

    return forget_outdated(
        release, finish_release(release, with_view(manifest, view, list(records.values())))
    )


def _records(
    release: ReleasePath,
    manifest: Manifest,
    view: TrainingView,
    settings: RunSettings,
    on_done: OnDone,
) -> tuple[dict[str, ShardRecord], list[str]]:
    """The record of each file of the view, and paths of those that had to be made."""
    jobs = plan_view(release.absolute(), manifest, view)
    done = known_records(release, jobs)
    for record in done.values():
        on_done(record)
    missing = [job for job in jobs if job.path not in done]
    if missing:
        keep_loadable(release, [job.path for job in missing])
        done |= _made(release, missing, settings, on_done)
    return {job.path: done[job.path] for job in jobs}, [job.path for job in missing]


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


def _made(
    release: ReleasePath, missing: Sequence[ViewShardJob], settings: RunSettings, on_done: OnDone
) -> dict[str, ShardRecord]:
    """The records of files just made, by path."""
    made: dict[str, ShardRecord] = {}
    failures: list[Failure] = []
    clear_quarantine(release, missing[0].view.name)
    # Any environment will do: what decides a view's bytes, its codec, each job looks at.
    terms = Terms(uuid.uuid4().hex, None, _state_sha256(release))
    with (
        interruptible() as events,
        open_cluster(settings.cluster.without_gpus(), len(missing), settings.say) as cluster,
    ):
        for result in run_jobs(cluster, missing, terms, events):
            if isinstance(result, Failure):
                failures.append(result)
                quarantine_shard(release, result)
            else:
                made[result.record.path] = result.record
                on_done(result.record)
    if failures:
        raise UserError(
            f"{len(failures)} of {len(missing)} files kept failing; {failures[0].path}: "
            f"{failures[0].reason}; the others are done: rerun to try again"
        )
    return made


def _state_sha256(release: ReleasePath) -> str:
    """Of the file by which workers see that they share the release's storage."""
    try:
        return sha256_file(release / STATE_FILE)
    except FileNotFoundError:
        raise UserError(f"{release} lacks {STATE_FILE}: run `release repair` first") from None


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
