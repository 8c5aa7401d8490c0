"""The command `release`."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from builder.release.encode_command import encode
from builder.release.told import print_comparisons, print_repair, print_report
from builder.release.view_command import view
from release.commands.command import EXIT_FOUND_WANTING, help_ends, run_commands, say
from release.commands.named_files import require_folder
from release.commands.options import Json, Workers
from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.commit import remove_temporaries
from release.files.storage import ReleasePath, release_path
from release.layout.findings import Report
from release.layout.latents import refuse_latents
from release.layout.manifest import Manifest, read_manifest
from release.lease import claimed

HELP = """What is done to a finished release. Each command has --help, and --json for scripts.

Exit codes: 0 done; 1 the release is not as it should be; 2 bad input, or something outside ended
it, as the one line says; 130 interrupted.

Examples:

\b
  release verify releases/fashion-mnist-32
  release publish releases/fashion-mnist-32 my-name/fashion-mnist-32
  release view releases/imagenet-1024 --size 256
  release encode releases/imagenet-1k-real --config 256 --autoencoder stabilityai/sd-vae-ft-ema
  release reproduce releases/fashion-mnist-32 s2023-r32-dress-000000-0
  release verify --help
"""
if TYPE_CHECKING:
    from builder.builds.run import RunSettings

ReleasePlace = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Folder or URL of a finished release.")
]
Mixed = Annotated[
    bool,
    typer.Option("--allow-mixed", help="Also with other package versions, or another device."),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        help="Run this module of others, which the release's recipe names; repeatable.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="Shards looked at side by side; by default one a core.")
]


def main() -> None:
    """Console entry point."""
    run_commands([verify, repair, extend, view, encode, reproduce, publish], HELP)


@help_ends(
    """
    Examples:

    \b
      release verify releases/fashion-mnist-32
      release verify releases/fashion-mnist-real --json
    """
)
def verify(place: ReleasePlace, threads: Threads = None, as_json: Json = False) -> None:
    """Check every byte and row of a release against its manifest and its plan.

    Each problem is a line; exit code 1 if there is one. Rehashes every shard; compares markers,
    schema, row counts, classes, image ids, seeds, prompts and parents with what the recipe in the
    manifest asks for; decodes every image and looks for the mark of synthetic media; checks the
    README's hash and load contract, and the files of rejected attempts. A real release's original
    bytes are rehashed one by one. Latents of the release are compared with its images' rows, some
    with what their autoencoder makes of the images, where it is at hand.
    """
    from builder.release.verify import with_latents

    release = release_path(place)
    started = time.monotonic()
    report = _verified(release, read_manifest(release), _threads(threads), as_json)
    report = with_latents(release, report, _threads(threads))
    seconds = time.monotonic() - started
    print_report(release, report, seconds, as_json)
    if not report.intact:
        raise typer.Exit(EXIT_FOUND_WANTING)


@help_ends(
    """
    Examples:

    \b
      release repair releases/fashion-mnist-32
      release repair releases/fashion-mnist-32 --json
    """
)
def repair(
    place: ReleasePlace,
    workers: Workers = None,
    allow_mixed: Mixed = False,
    trust: Trust = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Make the damaged shards of a release again, and nothing else.

    Verifies, makes again what has a problem (with the recipe in the manifest; a real release from
    its source), and verifies that. A child of a shard that comes out as it was is left alone.
    Latents are only looked at: `release encode` makes them again. Exit code 1 if problems remain.
    """
    from builder.release.repair import Repaired, damaged_shards, repair_release
    from builder.release.verify import with_latents

    release = release_path(place)
    settings = _run_settings(workers, allow_mixed, as_json)
    with claimed(_finished(release, trust), settings.say):
        manifest = read_manifest(release)
        report = _verified(release, manifest, _threads(threads), as_json)
        repaired = Repaired(manifest, (), ())
        if report.intact:
            remove_temporaries(release)  # of a repair that was killed when all was mended
        else:
            damaged = frozenset(damaged_shards(manifest, report))
            images = sum(record.rows for record in manifest.shards)
            with progress_bar(images, "repair", "images", quiet=as_json) as advance:
                repaired = repair_release(
                    release, manifest, report, settings, lambda record: advance(record.rows)
                )
            chosen = damaged | set(repaired.again)
            report = _verified(release, repaired.manifest, _threads(threads), as_json, chosen)
        after = with_latents(release, report, _threads(threads))
    print_repair(release, repaired.again, repaired.changed, after, as_json)
    if not after.intact:
        raise typer.Exit(EXIT_FOUND_WANTING)


@help_ends(
    """
    Examples:

    \b
      release extend releases/fashion-mnist-32 --per-class 200
    """
)
def extend(
    place: ReleasePlace,
    per_class: Annotated[int, typer.Option(help="Images of each class, those there included.")],
    workers: Workers = None,
    allow_mixed: Mixed = False,
    trust: Trust = None,
    as_json: Json = False,
) -> int:
    """Add images to a synthetic release, with the recipe in its manifest.

    As `build-dataset` with a higher --per-class: finished shards are left alone; rerun it to go on.
    """
    from builder.builds.build import build_release
    from builder.release.repair import extension_plan
    from builder.reporting import report_outcome

    release = release_path(place)
    settings = _run_settings(workers, allow_mixed, as_json)
    with claimed(_finished(release, trust), settings.say):
        plan = extension_plan(release, read_manifest(release), per_class)
        with progress_bar(plan.images, "extend", "images", quiet=as_json) as advance:
            outcome = build_release(plan, settings, lambda record: advance(record.rows))
    return report_outcome(outcome, release, as_json)


@help_ends(
    """
    Examples:

    \b
      release reproduce releases/fashion-mnist-32 s2023-r32-dress-000000-0
      release reproduce releases/fashion-mnist-32 --sample 20 --seed 0 --all-stages --out pairs
    """
)
def reproduce(
    place: ReleasePlace,
    image_id: Annotated[
        str | None, typer.Argument(help="An image's image_id.", metavar="[IMAGE_ID]")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Instead: so many images at random.")] = None,
    seed: Annotated[int, typer.Option(help="With --sample: which ones.")] = 0,
    all_stages: Annotated[
        bool, typer.Option("--all-stages", help="From the base on, not from the stored parent.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for PNGs: stored image left, made again right.")
    ] = None,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Make single images of a release again, from their rows, and compare pixels and bytes.

    Seed, prompt, sampler, checkpoint and parent come from the row. With the same package versions
    on the same kind of device pixels are equal; where those differ, it says so. Exit code 1 if
    pixels differ.
    """
    from builder.release.reproduce import Release

    if (image_id is None) == (sample is None):
        raise UserError("give an IMAGE_ID or --sample, one of them")
    if sample is not None and sample < 1:
        raise UserError(f"--sample {sample}: give at least 1")
    if seed < 0:
        raise UserError(f"--seed {seed}: give at least 0")
    if out is not None:
        require_folder(out, "--out")
    release = release_path(place)
    source = Release(_finished(release, trust), read_manifest(release))
    images = (
        source.draw(sample, seed, last_stage=all_stages)
        if sample is not None
        else [source.find(image_id or "")]
    )
    if all_stages:
        images = source.with_ancestors(images)
    comparisons = []
    with progress_bar(len(images), "reproduce", "images", quiet=as_json) as advance:
        for comparison in source.reproduce(images):
            comparisons.append(comparison)
            if out is not None:
                comparison.write_pair(out)
            advance(1)
    print_comparisons(release, comparisons, as_json)
    if not all(comparison.same_pixels for comparison in comparisons):
        raise typer.Exit(EXIT_FOUND_WANTING)


@help_ends(
    """
    Examples:

    \b
      release publish releases/fashion-mnist-32 my-name/fashion-mnist-32
      release publish releases/fashion-mnist-32 my-name/fashion-mnist-32 --tag v1.0 --verify
    """
)
def publish(
    place: ReleasePlace,
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
    there is not uploaded again. Of a release behind a URL some files at a time are copied here,
    4 GB at most. More than 10,000 files a folder stand in sub-folders there, and load the same. Log
    in with `hf auth login`, or set HF_TOKEN.
    """
    from builder.release.hub import Repository, hub_failures_in_a_line, require_hub
    from builder.release.publish import publish_release, refuse_unpublishable

    if repository.count("/") != 1 or "" in repository.split("/"):
        raise UserError(f"{repository!r} is no name on the Hub: give OWNER/NAME")
    release = release_path(place)
    manifest = read_manifest(release)
    refuse_unpublishable(release, manifest)
    require_hub(release, repository)
    if verify_first:
        report = _verified(release, manifest, _threads(threads), as_json)
        if not report.intact:
            raise UserError(f"{release} is damaged: {report.problems[0]}; see `release verify`")
    total = sum(record.bytes + record.rejections_bytes for record in manifest.shards)
    with (
        hub_failures_in_a_line(release, repository),
        progress_bar(total, "publish", "bytes", quiet=as_json) as advance,
    ):
        hub = Repository(repository, say)
        published = publish_release(release, manifest, hub, tag, private, advance)
    if as_json:
        print(json.dumps(asdict(published), indent=2))
        return
    config = next(reversed(manifest.base.splits()))
    print(f"published {published.files} files, {published.uploaded} of them now; load them with:")
    print("  from datasets import load_dataset")
    print(f'  images = load_dataset("{repository}", "{config}", revision="{published.tag}")')


def _verified(
    release: ReleasePath,
    manifest: Manifest,
    threads: int,
    quiet: bool,
    only: frozenset[str] | None = None,
) -> Report:
    """Verify the release, or only those shards of it that are named."""
    from builder.release.verify import verify_release

    chosen = [r for r in manifest.shards if only is None or r.path in only]
    with progress_bar(sum(r.rows for r in chosen), "verify", "images", quiet=quiet) as advance:
        return verify_release(release, manifest, threads, lambda r: advance(r.rows), only)


def _finished(release: ReleasePath, trust: list[str] | None) -> ReleasePath:
    """The release, if what its recipe runs may be run; before anything is made or locked there."""
    from builder.release.trust import require_trust

    manifest = read_manifest(release)
    refuse_latents(release, manifest)
    require_trust(manifest, trust or ())
    return release


def _run_settings(workers: int | None, allow_mixed: bool, quiet: bool) -> "RunSettings":
    from builder.builds.run import RunSettings

    remark = (lambda _: None) if quiet else say
    return RunSettings(ClusterOptions(workers), allow_mixed, remark)


def _threads(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: give at least 1")
    return threads or len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
