"""A finished release that is built on: what its manifest lists is neither lost nor mixed.

A release grows shard by shard. Until the growth is whole, its README names each file of the
manifest, so that readers find what they found before; then patterns say the same in a line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from release.environment import Environment
from release.errors import UserError
from release.files.commit import sha256_bytes, write_atomically
from release.files.storage import ReleasePath, read_bytes
from release.layout.findings import damage
from release.layout.manifest import Manifest, ShardRecord, standing_manifest
from release.layout.readme import README_FILE, contract_text, parsed_contract, pinned_files
from release.layout.shard_commit import PlannedShard, committed_records, write_marker
from release.layout.shard_files import flat_path


def known_records(release: ReleasePath, shards: Sequence[PlannedShard]) -> dict[str, ShardRecord]:
    """As committed_records, where a marker does not have the last word on a listed shard.

    If it is damaged or says otherwise than the manifest, the file's SHA-256 settles it: the shard
    gets the marker again that the manifest tells of, or counts as missing.
    """
    manifest = standing_manifest(release)
    if manifest is not None:
        require_flat(release, manifest)
    found = committed_records(release, shards)
    listed = {record.path: record for record in manifest.shards} if manifest else {}
    for shard in shards:
        record, marked = listed.get(shard.path), found.get(shard.path)
        if record is None or record == marked or not _is_of(record, shard):
            continue
        if _is_whole(release, record):
            environment = _only_environment(manifest)
            if environment is not None:
                write_marker(release, record, environment)
                found[shard.path] = record
        elif marked is not None and not _is_whole(release, marked):
            del found[shard.path]
    return found


def require_flat(release: ReleasePath, manifest: Manifest) -> None:
    """UserError for a published copy whose shards stand in sub-folders: they would not be found."""
    if any(record.path != flat_path(record.path) for record in manifest.shards):
        raise UserError(
            f"{release} is a copy as `release publish` lays out very many shards, in sub-folders: "
            "it is there to be read; go on with the release that it was published from"
        )


def _is_of(record: ShardRecord, shard: PlannedShard) -> bool:
    return (record.fingerprint, record.planned) == (shard.fingerprint, shard.planned)


def _is_whole(release: ReleasePath, record: ShardRecord) -> bool:
    """Whether the shard's files have the very bytes that `record` states."""
    if damage(release / record.path, record.bytes, record.sha256) is not None:
        return False
    rejections = release / record.rejections_path
    size, sha256 = record.rejections_bytes, record.rejections_sha256
    return not sha256 or damage(rejections, size, sha256) is None


def _only_environment(manifest: Manifest | None) -> Environment | None:
    """What every shard was made with; None where that is not one thing, or not said."""
    stated = manifest.origin.get("environments", []) if manifest else []
    if len(stated) != 1:
        return None
    return Environment(stated[0]["device"], tuple(sorted(stated[0]["versions"].items())))


def keep_loadable(release: ReleasePath, missing: Iterable[str]) -> None:
    """Before shards that no manifest lists are made: have the README name each file that it reads.

    missing: paths of the shards to be made. A README that cannot be read is left for the end.
    """
    manifest = standing_manifest(release)
    if manifest is None or set(missing) <= {record.path for record in manifest.shards}:
        return
    try:
        text = read_bytes(release / README_FILE).decode()
        contract, body = parsed_contract(text)
        configs = pinned_files(contract["configs"], manifest)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    pinned = contract_text(contract | {"configs": configs})
    content = (pinned + body).encode()
    if content != text.encode():
        write_atomically(release / README_FILE, content)
    documents = manifest.documents | {README_FILE: sha256_bytes(content)}
    if documents != manifest.documents:
        replace(manifest, documents=documents).write(release)


def lists_fewer(manifest: Manifest, standing: Manifest) -> bool:
    """Whether `manifest` lacks shards of `standing`: a release only grows, so by an error.

    Those of training views may go, with what they were made from.
    """
    return bool({r.path for r in standing.base.shards} - {r.path for r in manifest.base.shards})
