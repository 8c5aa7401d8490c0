"""The command `release`."""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from builder.manifest import Manifest, read_manifest
from builder.release.findings import Report
from generation.command import EXIT_FOUND_WANTING, run_commands
from generation.errors import UserError
from generation.progress import progress_bar

HELP = """What is done to a finished release. Each command has --help, and --json for scripts.

Exit codes: 0 done; 1 the release is not as it should be; 2 bad input, or something outside ended
it, as the one line says; 130 interrupted.

Examples:

\b
  release verify releases/fashion-mnist-32
  release publish releases/fashion-mnist-32 my-name/fashion-mnist-32
  release verify --help
"""
ReleaseFolder = Annotated[Path, typer.Argument(help="Folder of a finished release.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, no progress.")]
Threads = Annotated[
    int | None, typer.Option(help="Shards looked at side by side; by default one a core.")
]


def main() -> None:
    """Console entry point."""
    run_commands([verify, publish], HELP)


def verify(release: ReleaseFolder, threads: Threads = None, as_json: Json = False) -> None:
    """Check every byte and row of a release against its manifest and its plan.

    Each problem is a line; exit code 1 if there is one. Rehashes every shard; compares markers,
    schema, row counts, classes, image ids, seeds, prompts and parents with what the recipe in the
    manifest asks for; decodes every image and looks for the mark of synthetic media; checks the
    README's hash and load contract. A real release's original bytes are rehashed one by one.

    Examples:

    \b
      release verify releases/fashion-mnist-32
      release verify releases/fashion-mnist-real --json
    """
    started = time.monotonic()
    report = _verified(release, read_manifest(release), _threads(threads), as_json)
    seconds = time.monotonic() - started
    _print_report(release, report, seconds, as_json)
    if not report.intact:
        raise typer.Exit(EXIT_FOUND_WANTING)


def publish(
    release: ReleaseFolder,
    repository: Annotated[
        str,
        typer.Argument(help="OWNER/NAME on the Hub; made if there is none.", metavar="OWNER/NAME"),
    ],
    tag: Annotated[
        str | None, typer.Option(help="Name of this state; by default manifest-HASH.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="If the repository is made: for its owner alone.")
    ] = False,
    verify_first: Annotated[
        bool, typer.Option("--verify", help="Check every byte and row before, not sizes alone.")
    ] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Publish a synthetic release as a data set on the Hub, where `load_dataset` finds it.

    Shards go first, README and manifest last, in one commit that is tagged; each resolution is a
    configuration. Rate limits and failures in passing are waited for. Rerun it to go on: what is
    there is not uploaded again. Log in with `hf auth login`, or set HF_TOKEN.

    Examples:

    \b
      release publish releases/fashion-mnist-32 my-name/fashion-mnist-32
      release publish releases/fashion-mnist-32 my-name/fashion-mnist-32 --tag v1.0 --verify
    """
    from builder.release.hub import Repository, hub_failures_in_a_line
    from builder.release.publish import publish_release, refuse_unpublishable

    if repository.count("/") != 1 or "" in repository.split("/"):
        raise UserError(f"{repository!r} is no name on the Hub: give OWNER/NAME")
    manifest = read_manifest(release)
    refuse_unpublishable(release, manifest)
    if verify_first:
        report = _verified(release, manifest, _threads(threads), as_json)
        if not report.intact:
            raise UserError(f"{release} is damaged: {report.problems[0]}; see `release verify`")
    total = sum(record.bytes for record in manifest.shards)
    with (
        hub_failures_in_a_line(release, repository),
        progress_bar(total, "publish", "bytes", quiet=as_json) as advance,
    ):
        hub = Repository(repository, lambda text: print(text, file=sys.stderr))
        published = publish_release(release, manifest, hub, tag, private, advance)
    if as_json:
        print(json.dumps(asdict(published), indent=2))
        return
    config = next(reversed(manifest.splits()))
    print(f"published {published.files} files, {published.uploaded} of them now; load them with:")
    print("  from datasets import load_dataset")
    print(f'  images = load_dataset("{repository}", "{config}", revision="{published.tag}")')


def _verified(release: Path, manifest: Manifest, threads: int, quiet: bool) -> Report:
    from builder.release.verify import verify_release

    images = sum(record.rows for record in manifest.shards)
    with progress_bar(images, "verify", "images", quiet=quiet) as advance:
        return verify_release(release, manifest, threads, lambda record: advance(record.rows))


def _threads(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: give at least 1")
    return threads or len(os.sched_getaffinity(0))


def _print_report(release: Path, report: Report, seconds: float, as_json: bool) -> None:
    if as_json:
        content = {
            "release": str(release),
            "intact": report.intact,
            "shards": report.shards,
            "images": report.images,
            "bytes": report.bytes,
            "seconds": round(seconds, 2),
            "problems": [{"path": p.path, "problem": p.text} for p in report.problems],
        }
        print(json.dumps(content, indent=2))
        return
    for problem in report.problems:
        print(problem)
    found = f"{len(report.problems)} problems" if report.problems else "intact"
    print(
        f"{release}: {found} ({report.shards:,} shards, {report.images:,} images, "
        f"{report.bytes / 1e6:,.1f} MB in {seconds:.1f} s)"
    )


if __name__ == "__main__":
    main()
