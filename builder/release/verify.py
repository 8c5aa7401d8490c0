"""Verifying a release: every shard rehashed and compared with plan, marker and manifest."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from builder.release.checks.index import Indices, open_indices
from builder.release.checks.shards import ShardCheck, check_shard
from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import ReleasePath, StorageError, exists, list_files
from release.layout.findings import Problem, Report
from release.layout.latents import FOLDER, latents_of, set_folder
from release.layout.manifest import MANIFEST_FILE, Manifest, ShardRecord, read_manifest
from release.layout.readme import README_FILE, contract_problems, names_each_file
from release.layout.shard_commit import marker_name
from release.layout.shard_files import is_shard

# At the top of a folder they make load_dataset pass over the README, or refuse the folder.
MISLEADING = ("dataset_infos.json", "state.json", ".huggingface.yaml")


def verify_release(
    release: ReleasePath,
    manifest: Manifest,
    threads: int,
    on_shard: Callable[[ShardRecord], None],
    only: frozenset[str] | None = None,
) -> Report:
    """Check the whole release, or of its shards only those at the paths `only`.

    threads: shards looked at side by side; hashing and decoding let go of the interpreter's lock.
    """
    checks, problems = plan_checks_of(release, manifest)
    chosen = [check for check in checks if only is None or check.record.path in only]
    problems += [*_stray_problems(release, manifest), *_document_problems(release, manifest)]
    indices = open_indices(release, manifest, {problem.path for problem in problems})
    problems += _check_shards(release, chosen, indices, threads, on_shard)
    problems = list(dict.fromkeys(problems))  # of an index, what several shards say alike
    order = {record.path: position for position, record in enumerate(manifest.shards)}
    return Report(
        shards=len(chosen),
        images=sum(check.record.rows for check in chosen),
        bytes=sum(check.record.bytes for check in chosen),
        problems=tuple(sorted(problems, key=lambda p: (order.get(p.path, -1), p.path))),
    )


def with_latents(release: ReleasePath, report: Report, threads: int) -> Report:
    """The report of a release with what is found of all its finished sets of latents."""
    from builder.release.checks.latents import latent_sets

    for name in latent_sets(release):
        root = set_folder(release, name)
        try:
            manifest = read_manifest(root)
        except StorageError:
            raise
        except UserError as error:
            damaged = Problem(f"{FOLDER}/{name}/{MANIFEST_FILE}", str(error))
            report = replace(report, problems=(*report.problems, damaged))
            continue
        found = verify_release(root, manifest, threads, lambda _: None)
        problems = (Problem(f"{FOLDER}/{name}/{p.path}", p.text) for p in found.problems)
        report = Report(
            shards=report.shards + found.shards,
            images=report.images + found.images,
            bytes=report.bytes + found.bytes,
            problems=(*report.problems, *problems),
        )
    return report


def plan_checks_of(
    release: ReleasePath, manifest: Manifest
) -> tuple[list[ShardCheck], list[Problem]]:
    """A check of each shard, and the problems that need no look into one."""
    from builder.release.checks.views import view_checks

    latents = latents_of(manifest)
    if latents is not None:
        from builder.release.checks.latents import latent_checks

        return latent_checks(release, manifest, latents)
    if manifest.kind == "real":
        from builder.release.checks.real import import_checks

        checks, problems = import_checks(release, manifest.base)
    else:
        from builder.release.checks.synthetic import plan_checks

        checks, problems = plan_checks(release, manifest.base)
    of_views, problems_of_views = view_checks(release, manifest)
    return [*checks, *of_views], [*problems, *problems_of_views]


def _check_shards(
    release: ReleasePath,
    checks: Sequence[ShardCheck],
    indices: Indices,
    threads: int,
    on_shard: Callable[[ShardRecord], None],
) -> list[Problem]:
    problems: list[Problem] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        futures = {pool.submit(check_shard, release, check, indices): check for check in checks}
        try:
            for future in as_completed(futures):
                problems += future.result()
                on_shard(futures[future].record)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the shards in hand alone
            raise
    return problems


def _stray_problems(release: ReleasePath, manifest: Manifest) -> list[Problem]:
    """Files that `load_dataset` would read as part of the release, and that are not.

    Finished shards of an extension that is not whole are not read: the README names each file.
    """
    listed = {record.path for record in manifest.shards}
    names = list_files(release)
    strays = sorted(name for name in names if is_shard(name) and name not in listed)
    if strays and names_each_file(release):
        strays = [name for name in strays if marker_name(name) not in names]
    misleading = [
        n for n in sorted(names) if n in MISLEADING or ("/" not in n and n.endswith(".py"))
    ]
    return [
        *(Problem(name, "is not in the manifest") for name in strays),
        *(Problem(name, "keeps load_dataset from reading the release") for name in misleading),
    ]


def _document_problems(release: ReleasePath, manifest: Manifest) -> list[Problem]:
    """README and pictures against their hashes, and the load contract against the manifest."""
    found = []
    for name, sha256 in sorted(manifest.documents.items()):
        if not exists(release / name):
            found.append(Problem(name, "is missing"))
        elif sha256_file(release / name) != sha256:
            found.append(Problem(name, "was changed: its SHA-256 is not the manifest's"))
    if README_FILE not in manifest.documents:
        found.append(Problem(README_FILE, "has no hash in the manifest"))
    if exists(release / README_FILE):
        found += [Problem(README_FILE, text) for text in contract_problems(release, manifest)]
    return found
