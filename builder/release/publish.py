"""Publishing a release on the Hub: shards first, README and manifest last, then a tag."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import RepoFile

from builder.builds.growth import keep_loadable, require_flat
from builder.release.checks.shards import judged_marker
from builder.release.folding import (
    changed_meanwhile,
    folded_files,
    needs_folding,
    read_markers,
    refuse_too_many,
    rejections_of,
)
from builder.release.hub import LocalFile, Repository, lacking, local_file
from builder.state import STATE_FILE
from release.errors import UserError
from release.files.commit import sha256_bytes, sha256_file
from release.files.storage import ReleasePath, file_size, list_files, read_bytes
from release.layout.findings import Problem
from release.layout.image_index import is_index
from release.layout.latents import refuse_latents
from release.layout.manifest import MANIFEST_FILE, Manifest, read_manifest
from release.layout.readme import README_FILE
from release.layout.shard_commit import marker_name
from release.layout.shard_files import is_shard
from release.layout.training_views import lagging

BATCH_FILES = 100  # files in a commit, shards and markers
BATCH_BYTES = 4 << 30
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Published:
    """uploaded: files that were not there before."""

    repository: str
    tag: str
    files: int
    uploaded: int


def refuse_unpublishable(release: ReleasePath, manifest: Manifest) -> None:
    """UserError if the release is real, unfinished, or its files do not have the stated sizes; and
    for latents, which anyone makes of the images."""
    refuse_latents(release, manifest)
    if manifest.kind == "real":
        raise UserError(
            f"{release} holds real images: they are not yours to publish; `release publish` takes "
            "synthetic releases"
        )
    require_flat(release, manifest)
    refuse_too_many(manifest)
    problems = [*quick_problems(release, manifest)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"{release} is damaged or unfinished: {problems[0]}{more}; see `release verify`, "
            "mend it with `release repair`, then publish"
        )


def quick_problems(release: ReleasePath, manifest: Manifest) -> Iterator[Problem]:
    """What markers, sizes and the hashes of the documents tell, without reading a shard."""
    sizes = list_files(release)
    for record, marker in read_markers(release, manifest):
        yield from judged_marker(record, marker)
        if record.path not in sizes:
            yield Problem(record.path, "is missing")
        elif sizes[record.path] != record.bytes:
            yield Problem(record.path, f"has not the {record.bytes:,} bytes of the manifest")
        if record.rejections_sha256 and record.rejections_path not in sizes:
            yield Problem(record.rejections_path, "is missing")
    for name, text in lagging(manifest).items():
        yield Problem(name, text)
    if not manifest.documents:
        yield Problem(MANIFEST_FILE, "notes no README")
    for name, sha256 in manifest.documents.items():
        if name not in sizes or sha256_file(release / name) != sha256:
            yield Problem(name, "is missing or was changed after it was noted")


def published_files(
    release: ReleasePath, manifest: Manifest
) -> tuple[list[LocalFile], list[LocalFile]]:
    """What is published: shards with markers and rejections, then what makes a release of them.

    Sidecars are not: they name hosts and times.
    """
    data = []
    for record, marker in read_markers(release, manifest):
        data.append(LocalFile(record.path, release / record.path, record.bytes, record.sha256))
        data += rejections_of(release, record, record)
        name, content = marker_name(record.path), marker or b""
        data.append(LocalFile(name, release / name, len(content), sha256_bytes(content)))
    documents = [
        LocalFile(name, release / name, file_size(release / name), sha256)
        for name, sha256 in sorted(manifest.documents.items())
    ]
    own = [local_file(release, name) for name in (STATE_FILE, MANIFEST_FILE)]
    return data, [own[0], *documents, own[1]]


def publish_release(
    release: ReleasePath,
    manifest: Manifest,
    repository: Repository,
    tag: str | None,
    private: bool,
    advance: Advance,
) -> Published:
    """Upload what the repository lacks; rerun it to go on. advance: told of bytes that are there.

    A release of more files than a folder on the Hub holds is laid out in sub-folders there.
    """
    with TemporaryDirectory(prefix="publish-") as folder:
        files = _files(release, manifest, Path(folder))
        return _publish(manifest, files, repository, tag, private, advance)


def _files(
    release: ReleasePath, manifest: Manifest, folder: Path
) -> tuple[list[LocalFile], list[LocalFile]]:
    """What is published, the last files as they are now: copies of them in `folder`.

    An upload can take hours, and no lease is held: a release may be read from where nobody writes.
    Whoever extends it meanwhile, or renders its card, changes nothing of what is published.
    """
    if needs_folding(manifest):
        data, last = folded_files(release, manifest, folder)
    else:
        data, last = published_files(release, manifest)
    if read_manifest(release) != manifest:
        raise changed_meanwhile(release)
    _refuse_links_out(release, [*data, *last])
    return data, [_kept(release, file, folder / "last") for file in last]


def _kept(release: ReleasePath, file: LocalFile, folder: Path) -> LocalFile:
    if isinstance(file.source, Path) and file.source.is_relative_to(folder.parent):
        return file  # written for this, folded
    content, place = read_bytes(file.source), folder / file.path
    if sha256_bytes(content) != file.sha256:
        raise changed_meanwhile(release)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return replace(file, source=place)


def _publish(
    manifest: Manifest,
    files: tuple[list[LocalFile], list[LocalFile]],
    repository: Repository,
    tag: str | None,
    private: bool,
    advance: Advance,
) -> Published:
    """`files`: the data, and what makes a release of it.

    README and manifest are one commit, made only when every shard is there with the manifest's
    hash: what a reader finds is a whole release. The tag names that commit.
    """
    data, last = files
    repository.create(private=private)
    there = repository.files()
    _refuse_other_data(repository.name, data, list(there))
    missing = lacking(data, there)
    if _pin_readme(repository, missing, there):
        there = repository.files()
    advance(sum(f.size for f in data) - sum(f.size for f in missing))
    for batch in _batches(missing):
        repository.commit(batch, f"Add shards of {manifest.name}")
        advance(sum(file.size for file in batch))
    wrong = lacking(data, repository.files()) if missing else []
    if wrong:
        raise UserError(
            f"{wrong[0].path} has other bytes than the manifest says, on the Hub too: run "
            "`release repair`, then publish again"
        )
    documents, own = lacking(last, there), {file.path for file in last}
    stale = [path for path in there if is_index(path) and path not in own]
    if documents:
        repository.commit(documents, f"Release {manifest.name}", stale)
    tag = tag or f"manifest-{last[-1].sha256[:12]}"
    repository.tag(tag, last[-1])
    return Published(
        repository=repository.name,
        tag=tag,
        files=len(data) + len(last),
        uploaded=len(missing) + len(documents),
    )


def _refuse_links_out(release: ReleasePath, files: Sequence[LocalFile]) -> None:
    """UserError for a file that is a link to one outside: that would be sent in its place."""
    if not isinstance(release, Path):
        return
    root = release.resolve()
    for file in files:
        source = file.source
        own = isinstance(source, Path) and source.is_relative_to(release)
        if own and not Path(str(source)).resolve().is_relative_to(root):
            raise UserError(
                f"{file.source} is a link that leads out of {release}: put the file itself there; "
                "what is published is of the release alone"
            )


def _pin_readme(
    repository: Repository, missing: Sequence[LocalFile], there: dict[str, RepoFile]
) -> bool:
    """Before shards are added to an earlier state: have its README name each of its files.

    So it loads as it was until all of them are there. Returns whether the README was replaced.
    """
    if not {README_FILE, MANIFEST_FILE} <= there.keys():
        return False
    with TemporaryDirectory() as name:
        folder = Path(name)
        for path in (README_FILE, MANIFEST_FILE):
            (folder / path).write_bytes(repository.read(path))
        keep_loadable(folder, [file.path for file in missing if is_shard(file.path)])
        changed = lacking([local_file(folder, p) for p in (README_FILE, MANIFEST_FILE)], there)
        if changed:
            repository.commit(changed, "Name each file while shards are added")
    return bool(changed)


def _refuse_other_data(name: str, data: Sequence[LocalFile], there: Sequence[str]) -> None:
    """UserError if the repository holds shards of another release: they would be mixed."""
    own = {file.path for file in data}
    others = [path for path in there if path.endswith((".parquet", ".arrow")) and path not in own]
    if others:
        raise UserError(
            f"{name} holds {others[0]}, which is not of this release ({len(others)} such files): "
            "publish under another name, or delete them there"
        )


def _batches(files: Sequence[LocalFile]) -> Iterator[list[LocalFile]]:
    batch: list[LocalFile] = []
    for file in files:
        if batch and (
            len(batch) == BATCH_FILES or sum(f.size for f in batch) + file.size > BATCH_BYTES
        ):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
