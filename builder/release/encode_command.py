"""The command `release encode`."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from release.commands.command import help_ends, say
from release.commands.options import Json, Scheduler, SchedulerFile, TlsCa, TlsCert, TlsKey, Workers
from release.commands.progress import progress_bar
from release.errors import UserError
from release.files.names import plain_name
from release.files.storage import ReleasePath, release_path
from release.layout.latents import Latents, set_folder
from release.layout.manifest import Manifest, read_manifest
from release.lease import claimed

ReleasePlace = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Folder or URL of a finished release.")
]
AutoencoderName = Annotated[
    str,
    typer.Option(
        "--autoencoder",
        help="diffusers' AutoencoderKL, AutoencoderKLFlux2 or VQModel, or a model that has one: "
        "its folder, or OWNER/NAME[@REVISION] on the Hub.",
    ),
]
Config = Annotated[str, typer.Option(help="Configuration whose images are encoded, such as 256.")]
Mirrored = Annotated[
    bool, typer.Option("--mirrored", help="Encode each mirrored image, too, for flips in training.")
]
DType = Annotated[str, typer.Option(help="Of the numbers kept: float16 or float32.")]
Name = Annotated[
    str | None, typer.Option(help="Name of the set; by default the autoencoder's, and CONFIG.")
]
Mixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Also with other package versions, or another device.")
]


@help_ends(
    """
    Examples:

    \b
      release encode releases/imagenet-1k-real --config 256 --autoencoder stabilityai/sd-vae-ft-ema
      release encode releases/imagenet-1k-real --config 256 --mirrored \\
        --autoencoder models/sd-vae-ft-ema --name sd-vae --scheduler tcp://127.0.0.1:8786
    """
)
def encode(
    place: ReleasePlace,
    autoencoder: AutoencoderName,
    config: Config,
    mirrored: Mirrored = False,
    dtype: DType = "float16",
    name: Name = None,
    allow_mixed: Mixed = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: Json = False,
) -> None:
    """Encode the images once: latents, for generators to train on, as RELEASE/latents/NAME.

    Of each image the mean and the log variance of its posterior are kept, beside its id and label.
    The release itself stays as it is. Rerun it to go on, to mend damaged files, and after the
    release has grown.
    """
    from builder.builds.run import RunSettings
    from builder.release.latents import make_latents, planned_latents, require_same_set
    from generation.pretrained.autoencoder_files import locate_autoencoder

    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    settings = RunSettings(options, allow_mixed, (lambda _: None) if as_json else say)
    release = release_path(place)
    manifest = read_manifest(release)
    planned = planned_latents(
        manifest, config, locate_autoencoder(autoencoder), dtype, mirrored=mirrored
    )
    name = _set_name(name, autoencoder, config)
    root = set_folder(release, name)
    require_same_set(root, planned)
    started = time.monotonic()
    images = sum(r.rows for r in manifest.shards if r.config == config)
    with (
        claimed(release, settings.say),
        progress_bar(images, "encode", "images", quiet=as_json) as advance,
    ):
        if read_manifest(release) != manifest:
            raise UserError(f"{release} was changed by another command meanwhile: run again")
        made = make_latents(
            release, manifest, name, planned, settings, lambda record: advance(record.rows)
        )
    _report(root, made, planned, time.monotonic() - started, as_json)


def _set_name(name: str | None, autoencoder: str, config: str) -> str:
    """AUTOENCODER-CONFIG, of the last part of its name."""
    wanted = name or f"{autoencoder.rstrip('/').split('/')[-1].split('@')[0]}-{config}"
    try:
        return plain_name(wanted)
    except ValueError as error:
        raise UserError(f"--name {error}") from None


def _report(
    root: ReleasePath, made: Manifest, latents: Latents, seconds: float, as_json: bool
) -> None:
    images = sum(record.rows for record in made.shards)
    size = sum(record.bytes for record in made.shards)
    if as_json:
        content = {
            "latents": str(root),
            **asdict(latents),
            "files": len(made.shards),
            "images": images,
            "bytes": size,
            "seconds": round(seconds, 2),
        }
        print(json.dumps(content, indent=2))
        return
    print(
        f"{root}: {latents} ({images:,} images in {len(made.shards):,} files, {size / 1e6:,.1f} MB)"
    )
    print(f"train on it with: finetune-generator --recipe … --data {root}")
