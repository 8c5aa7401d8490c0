"""Making a set of latents of a finished release, on a cluster."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

from builder.builds.run import OnDone, Outcome, ReleaseJobs, RunSettings, run_builds
from builder.shards.latent_shard import LatentShardJob, plan_latents
from builder.state import LatentState, read_state
from generation.pretrained.autoencoder_files import AutoencoderFiles
from release.errors import UserError, unknown_name
from release.files.commit import remove_temporaries
from release.files.storage import ReleasePath, list_files
from release.layout.findings import damage
from release.layout.index_writing import remove_unnoted_indices
from release.layout.latents import ORIGIN_KEY, Latents, latents_of, set_folder
from release.layout.manifest import Manifest, standing_manifest
from release.layout.readme import loads_as_stated, write_documents
from release.layout.shard_commit import forget_shard
from release.layout.shard_files import is_shard

DTYPES = ("float16", "float32")


def planned_latents(
    manifest: Manifest, config: str, files: AutoencoderFiles, dtype: str, *, mirrored: bool
) -> Latents:
    """What was asked for; UserError for a configuration of several sizes, or one it has not."""
    configs = list(manifest.splits())
    if latents_of(manifest) is not None:
        raise UserError(f"{manifest.name} holds latents: name the release of their images")
    if config not in configs:
        raise unknown_name(f"configuration of {manifest.name}", config, configs)
    if not config.isdecimal():
        raise UserError(
            f"--config {config}: its images have several sizes; name one of a fixed resolution"
        )
    if dtype not in DTYPES:
        raise unknown_name("--dtype", dtype, DTYPES)
    resolution = int(config)
    return Latents(
        autoencoder=files.name,
        sha256=files.sha256,
        kind=files.kind,
        resolution=resolution,
        side=files.side(resolution),
        channels=files.channels,
        scaling_factor=files.scaling_factor,
        shift_factor=files.shift_factor,
        dtype="float32" if dtype == "float32" else "float16",
        mirrored=mirrored,
    )


def require_same_set(root: ReleasePath, latents: Latents) -> None:
    """UserError if other latents stand in that folder."""
    standing = standing_manifest(root)
    found = None if standing is None else latents_of(standing)
    if found is None:
        return
    for field in fields(Latents):
        was, now = getattr(found, field.name), getattr(latents, field.name)
        if field.name != "autoencoder" and was != now:
            raise UserError(
                f"{root} holds latents with {field.name} {was}, asked for is {now}: ask for the "
                "same, or give the new set a name of its own with --name"
            )


def make_latents(
    release: ReleasePath,
    manifest: Manifest,
    name: str,
    latents: Latents,
    settings: RunSettings,
    on_done: OnDone,
) -> Manifest:
    """Make what the set lacks, and what of it is damaged; its manifest. Rerun it to go on.

    Files that are no longer of the set go, once the manifest does not list them. UserError if a
    file kept failing, after all others are made; the manifest is as before then.
    """
    root = set_folder(release, name)
    jobs = plan_latents(
        release.absolute(), manifest, str(latents.resolution), latents, root.absolute()
    )
    standing = standing_manifest(root)
    for record in standing.shards if standing else ():
        if damage(root / record.path, record.bytes, record.sha256) is not None:
            forget_shard(root, record.path)
    (outcome,) = run_builds([_asked(root, manifest, latents, jobs)], settings, on_done)
    if failures := outcome.quarantined:
        raise UserError(
            f"{len(failures)} of {len(jobs)} files kept failing; {failures[0].path}: "
            f"{failures[0].reason}; the others are done: rerun to try again"
        )
    return _finished(root, manifest, latents, outcome)


def _asked(
    root: ReleasePath, manifest: Manifest, latents: Latents, jobs: Sequence[LatentShardJob]
) -> ReleaseJobs:
    state = read_state(root, LatentState)
    if state is None or state.autoencoder_sha256 != latents.sha256:  # of a set never finished
        state = LatentState(manifest.name, latents.sha256)
    return ReleaseJobs(release=root, state=state, jobs=jobs)


def _finished(
    root: ReleasePath, manifest: Manifest, latents: Latents, outcome: Outcome
) -> Manifest:
    """README, then manifest, unless they stand there already; then what is left over goes."""
    remove_temporaries(root)
    new = replace(
        manifest,
        origin={ORIGIN_KEY: asdict(latents), "source": manifest.name, **outcome.origin()},
        shards=outcome.records,
        documents={},
    )
    standing = standing_manifest(root)
    if standing is not None and new.is_written(root) and loads_as_stated(root, new):
        new = standing
    else:
        new = replace(new, documents=write_documents(root, new))
        new.write(root)
    listed = {record.path for record in new.shards}
    for path in sorted(list_files(root)):
        if is_shard(path) and path not in listed:
            forget_shard(root, path)
    remove_unnoted_indices(root, new)
    return new
