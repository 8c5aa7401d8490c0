"""The command `release view`."""

import json
import time
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from builder.cluster.cluster import ClusterOptions
from release.commands.command import help_ends, say
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey, Workers
from release.commands.progress import progress_bar
from release.errors import unknown_name
from release.files.storage import ReleasePath, release_path
from release.layout.latents import refuse_latents
from release.layout.manifest import Manifest, read_manifest
from release.layout.origin import Subsampling
from release.layout.training_views import TrainingView, new_view, view_of
from release.lease import claimed

if TYPE_CHECKING:
    from builder.builds.run import RunSettings

ReleasePlace = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Folder or URL of a finished release.")
]
Size = Annotated[int, typer.Option(help="Of the short side, in pixels.")]
Quality = Annotated[int, typer.Option(help="Of the JPEG, 1 to 100.")]
SubsamplingName = Annotated[str, typer.Option(help="Of its colours: 4:4:4, 4:2:2 or 4:2:0.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from", help="Configuration to make it from; by default the original or largest."
    ),
]
Name = Annotated[str | None, typer.Option(help="Configuration to make; by default SIZE-jpeg.")]


@help_ends(
    """
    Examples:

    \b
      release view releases/fashion-mnist-32 --size 16
      release view releases/imagenet-1024 --size 256 --quality 95 --from 1024
      release view releases/imagenet-1k-real --from original --scheduler tcp://127.0.0.1:8786
    """
)
def view(
    place: ReleasePlace,
    size: Size = 256,
    quality: Quality = 95,
    subsampling: SubsamplingName = "4:4:4",
    source: From = None,
    name: Name = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: Json = False,
) -> None:
    """Add a training view: small JPEGs of one configuration, for classifiers to train on.

    The short side of each image becomes SIZE pixels, by bicubic; smaller images keep theirs. Rows,
    ids and files are those of the source. Rerun it to go on, and after the release has grown.
    """
    from builder.builds.run import RunSettings

    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    settings = RunSettings(options, say=(lambda _: None) if as_json else say)
    release = release_path(place)
    manifest = read_manifest(release)
    refuse_latents(release, manifest)
    planned = new_view(manifest, size, quality, _subsampling(subsampling), source, name)
    started = time.monotonic()
    with claimed(release, settings.say):
        finished = _made(release, planned, settings, quiet=as_json)
    _report(release, finished, planned, time.monotonic() - started, as_json)


def _made(
    release: ReleasePath, planned: TrainingView, settings: "RunSettings", *, quiet: bool
) -> Manifest:
    """Of the release as it is now that nobody else changes it; with progress."""
    from builder.release.views import make_view

    manifest = read_manifest(release)
    stated = view_of(manifest, planned.name)
    if stated is not None and stated.codec != planned.codec:
        settings.say(f"{planned.name} was made by {stated.codec}: all of it is made again")
    images = sum(r.rows for r in manifest.shards if r.config == planned.source)
    with progress_bar(images, "view", "images", quiet=quiet) as advance:
        return make_view(release, manifest, planned, settings, lambda record: advance(record.rows))


def _subsampling(text: str) -> Subsampling:
    options: tuple[Subsampling, ...] = get_args(Subsampling)
    for option in options:
        if text == option:
            return option
    raise unknown_name("subsampling", text, options)


def _report(
    release: ReleasePath, manifest: Manifest, view: TrainingView, seconds: float, as_json: bool
) -> None:
    sizes = {
        config: sum(record.bytes for record in manifest.shards if record.config == config)
        for config in (view.source, view.name)
    }
    files = [record for record in manifest.shards if record.config == view.name]
    images = sum(record.rows for record in files)
    if as_json:
        content = {
            "release": str(release),
            "view": vars(view),
            "files": len(files),
            "images": images,
            "bytes": sizes[view.name],
            "source_bytes": sizes[view.source],
            "seconds": round(seconds, 2),
        }
        print(json.dumps(content, indent=2))
        return
    print(
        f"{release}: {view.name}, {view} ({images:,} images in {len(files):,} files, "
        f"{sizes[view.name] / 1e6:,.1f} MB instead of {sizes[view.source] / 1e6:,.1f} MB)"
    )
    print(f"train on it with: train-classifier --train {release}:{view.name}")
