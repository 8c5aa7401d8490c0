"""manifest.json: what a release holds, file by file, and how it was made."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from generation.classes import ClassEntry
from generation.commit import canonical_json, sha256_text, write_atomically
from generation.errors import UserError
from generation.shard_files import shard_split
from generation.storage import ReleasePath, read_text

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class ShardRecord:
    """One committed file; `per_class` counts its rows by class id.

    rejected: images that were made and not kept, by class id. quarantined: slots that stay empty.
    rejections_bytes, rejections_sha256: of the file that says why, 0 and "" if there is none.
    """

    path: str  # relative to the release, see generation/shard_files.py
    rows: int
    bytes: int
    sha256: str
    fingerprint: str
    per_class: dict[str, int]
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    rejections_bytes: int = 0
    rejections_sha256: str = ""

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

    name: str
    kind: Literal["real", "synthetic"]
    dataset: str
    regime: Literal["A", "B", "C"] | None
    license: str
    classes: tuple[ClassEntry, ...]
    origin: dict[str, Any]
    shards: tuple[ShardRecord, ...]
    documents: dict[str, str] = field(default_factory=dict)

    @property
    def content_sha256(self) -> str:
        """Identity of the release: its files' paths and hashes."""
        return sha256_text(canonical_json(sorted([s.path, s.sha256] for s in self.shards)))

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
        try:
            standing = read_manifest(release)
        except UserError:
            return False
        text = read_text(release / MANIFEST_FILE)
        return text == replace(self, documents=standing.documents)._text()

    def _text(self) -> str:
        content: dict[str, Any] = {**asdict(self), "content_sha256": self.content_sha256}
        content["manifest_sha256"] = _own_sha256(content)
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _own_sha256(content: dict[str, Any]) -> str:
    """Of everything else that a manifest says."""
    return sha256_text(canonical_json(content))


def read_manifest(release: ReleasePath) -> Manifest:
    """Raises UserError if `release` has no manifest or one that does not fit its own hashes.

    Early manifests have only the hash of their files, none of all they say.
    """
    path = release / MANIFEST_FILE
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{release} is not a finished release: no {MANIFEST_FILE} there") from None
    try:
        content = json.loads(text)
        own = content.pop("manifest_sha256", None)
        changed = own is not None and own != _own_sha256(content)
        stated = content.pop("content_sha256")
        content["classes"] = tuple(ClassEntry(**entry) for entry in content["classes"])
        content["shards"] = tuple(ShardRecord(**shard) for shard in content["shards"])
        manifest = Manifest(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if changed or stated != manifest.content_sha256:
        raise UserError(f"{path} was changed after it was written: its own hash does not fit")
    return manifest
