"""The command `release`."""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from builder.manifest import read_manifest
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
  release verify --help
"""
ReleaseFolder = Annotated[Path, typer.Argument(help="Folder of a finished release.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, no progress.")]
Threads = Annotated[
    int | None, typer.Option(help="Shards looked at side by side; by default one a core.")
]


def main() -> None:
    """Console entry point."""
    run_commands([verify], HELP)


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
    from builder.release.verify import verify_release

    manifest = read_manifest(release)
    started = time.monotonic()
    images = sum(record.rows for record in manifest.shards)
    with progress_bar(images, "verify", "images", quiet=as_json) as advance:
        report = verify_release(release, manifest, _threads(threads), lambda r: advance(r.rows))
    seconds = time.monotonic() - started
    _print_report(release, report, seconds, as_json)
    if not report.intact:
        raise typer.Exit(EXIT_FOUND_WANTING)


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
