"""manifest.json: what a release holds, file by file, and how it was made."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from release.classes.class_list import ClassEntry
from release.commands.named_files import no_folder
from release.commands.validation import misfit
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text, write_atomically
from release.files.names import plain_path
from release.files.storage import ReleasePath, StorageError, read_text
from release.layout.origin import ORIGIN, OWN_FOLDERS, Count
from release.layout.shard_files import (
    FileState,
    file_state,
    flat_path,
    plain_shard_path,
    shard_split,
)

MANIFEST_FILE = "manifest.json"
# A document is written for people and their tools: deleting one never harms the release itself.
OWN_FILES = (MANIFEST_FILE, "build.json")


def _document_name(text: str) -> str:
    plain_path(text)
    own = text in OWN_FILES or text.split("/", maxsplit=1)[0] in OWN_FOLDERS
    if own or text.endswith((".parquet", ".arrow")):
        raise ValueError(f"{text!r} is part of the release and no document of it")
    return text


def _release_name(text: str) -> str:
    if not text.isprintable() or "/" in text:
        raise ValueError(f"{text!r} is no folder's name")
    return text


def _in_order(classes: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
    if [entry.label for entry in classes] != list(range(len(classes))):
        raise ValueError("labels must count 0, 1, 2 … in order")
    return classes


# What a manifest that was read may hold; one that is written holds what its maker put there.
ShardPath = Annotated[str, AfterValidator(plain_shard_path)]
DocumentName = Annotated[str, AfterValidator(_document_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ShardRecord:
    """One committed file; `per_class` counts its rows by class id.

    rejected: images that were made and not kept, by class id. quarantined: slots that stay empty.
    rejections_bytes, rejections_sha256: of the file that says why, 0 and "" if there is none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    path: ShardPath  # relative to the release, see release/layout/shard_files.py
    rows: Count
    bytes: Count
    sha256: Sha256
    fingerprint: str
    per_class: dict[str, Count]
    rejected: dict[str, Count] = field(default_factory=dict)
    quarantined: dict[str, Count] = field(default_factory=dict)
    rejections_bytes: Count = 0
    rejections_sha256: Sha256 | Literal[""] = ""

    @property
    def planned(self) -> int:
        """Slots of the shard: written and quarantined."""
        return self.rows + sum(self.quarantined.values())

    @property
    def rejections_path(self) -> str:
        """Where the file of rejected attempts stands, if there is one."""
        return f"rejections/{PurePosixPath(self.path).with_suffix('.parquet')}"

    @property
    def config(self) -> str:
        return self.path.split("/")[0]

    @property
    def split(self) -> str:
        return shard_split(self.path)


@dataclass(frozen=True)
class Manifest:
    """A release. kind: real images never carry the mark of synthetic media, and the reverse.

    dataset: the real data set whose classes these are. regime: A, the generator never saw that
    set; B, it was fine-tuned on it; C, it is conditioned on real images; None for real images.
    origin: the recipe and the build requests, or the source and crop rule of real images.
    documents: SHA-256, by name, of what is written for people and their tools: README.md, its
    pictures, croissant.json.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(_release_name)]
    kind: Literal["real", "synthetic"]
    dataset: str
    regime: Literal["A", "B", "C"] | None
    license: str
    classes: Annotated[tuple[ClassEntry, ...], AfterValidator(_in_order)]
    origin: dict[str, Any]
    shards: Annotated[tuple[ShardRecord, ...], Field(min_length=1)]
    documents: dict[DocumentName, Sha256] = field(default_factory=dict)

    @property
    def content_sha256(self) -> str:
        """Identity of the release: its files' paths and hashes, in whichever sub-folder.

        Training views are left out. They follow from the others: what was measured before there
        was one stays true.
        """
        files = sorted([flat_path(s.path), s.sha256] for s in self.base.shards)
        return sha256_text(canonical_json(files))

    @property
    def training_views(self) -> tuple[str, ...]:
        """Names of the configurations that are derived, see release/layout/training_views.py."""
        return tuple(view["name"] for view in self.origin.get("training_views", ()))

    @property
    def base(self) -> "Manifest":
        """The release without its training views."""
        names = self.training_views
        if not names:
            return self
        origin = {key: value for key, value in self.origin.items() if key != "training_views"}
        shards = tuple(shard for shard in self.shards if shard.config not in names)
        return replace(self, origin=origin, shards=shards)

    def rows(self, config: str, split: str) -> int:
        return sum(s.rows for s in self.shards if (s.config, s.split) == (config, split))

    def per_class(self, config: str, split: str) -> Counter[str]:
        """Rows by class id."""
        return self._count(config, split, "per_class")

    def rejected(self, config: str, split: str) -> Counter[str]:
        """Images made and not kept, by class id."""
        return self._count(config, split, "rejected")

    def quarantined(self, config: str, split: str) -> Counter[str]:
        """Slots that stay empty, by class id."""
        return self._count(config, split, "quarantined")

    def _count(self, config: str, split: str, name: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for shard in self.shards:
            if (shard.config, shard.split) == (config, split):
                counts.update(getattr(shard, name))
        return counts

    def splits(self) -> dict[str, list[str]]:
        """Split names of each configuration, in the order of the files."""
        found: dict[str, list[str]] = {}
        for shard in self.shards:
            names = found.setdefault(shard.config, [])
            if shard.split not in names:
                names.append(shard.split)
        return found

    def write(self, release: ReleasePath) -> None:
        write_atomically(release / MANIFEST_FILE, self._text().encode())

    def is_written(self, release: ReleasePath) -> bool:
        """Whether this manifest stands in `release`, whatever documents it has been given there."""
        standing = standing_manifest(release)
        if standing is None:
            return False
        text = read_text(release / MANIFEST_FILE)
        return text == replace(self, documents=standing.documents)._text()

    def _text(self) -> str:
        content: dict[str, Any] = {
            **vars(self),
            "classes": [vars(entry) for entry in self.classes],
            "shards": [vars(record) for record in self.shards],  # millions of values: not copied
            "content_sha256": self.content_sha256,
        }
        content["manifest_sha256"] = _own_sha256(content)
        text = StringIO()
        for piece in json.JSONEncoder(indent=1, sort_keys=True, ensure_ascii=False).iterencode(
            content
        ):
            text.write(piece)  # json.dumps would hold all pieces, as many strings, at once
        return text.getvalue() + "\n"


def _own_sha256(content: dict[str, Any]) -> str:
    """Of everything else that a manifest says."""
    return sha256_text(canonical_json(content))


RECORD, MANIFEST = TypeAdapter(ShardRecord), TypeAdapter(Manifest)


def parse_record(content: Any) -> ShardRecord:
    """A record as a file holds it; ValueError for another shape, and for a path that leads out."""
    return RECORD.validate_python(content)


def read_manifest(release: ReleasePath) -> Manifest:
    """Raises UserError if `release` has no manifest or one that does not fit its own hashes.

    So it does for a value of another type, and for a path or name that leads out of the release.
    Early manifests have only the hash of their files, none of all they say. A file that is as it
    was is parsed once a process: of millions of images that takes seconds.
    """
    path = release / MANIFEST_FILE
    if isinstance(path, Path) and path.is_file():
        return _read_in_state(release, file_state(path))
    return _read_manifest(release)


@lru_cache(maxsize=8)
def _read_in_state(release: ReleasePath, state: FileState) -> Manifest:  # noqa: ARG001
    return _read_manifest(release)


def standing_manifest(release: ReleasePath) -> Manifest | None:
    """The manifest that can be read there; None if there is none.

    A store that fails is no answer: StorageError.
    """
    try:
        return read_manifest(release)
    except StorageError:
        raise
    except UserError:
        return None


def _read_manifest(release: ReleasePath) -> Manifest:
    path = release / MANIFEST_FILE
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        reason = no_folder(release) or f"no {MANIFEST_FILE} there"
        raise UserError(f"{release} is not a finished release: {reason}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    content, stated = _hashed_content(path, text)
    manifest = _parsed(path, content)
    if stated != manifest.content_sha256:
        raise _changed(path)
    return manifest


def _hashed_content(path: ReleasePath, text: str) -> tuple[dict[str, Any], Any]:
    """What the manifest says, less its hashes, and the one of its files."""
    try:
        content = json.loads(text)
        own = content.pop("manifest_sha256", None)
        changed = own is not None and own != _own_sha256(content)
        stated = content.pop("content_sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if changed:
        raise _changed(path)
    return content, stated


def _parsed(path: ReleasePath, content: dict[str, Any]) -> Manifest:
    place = content
    try:
        manifest = MANIFEST.validate_python(content)
        place = manifest.origin
        ORIGIN.validate_python(place)
    except ValidationError as error:
        where = f"{path} cannot be read: {'' if place is content else 'origin.'}"
        raise UserError(f"{where}{misfit(place, error)}") from None
    return manifest


def _changed(path: ReleasePath) -> UserError:
    return UserError(f"{path} was changed after it was written: its own hash does not fit")
