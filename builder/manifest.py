"""manifest.json: what a release holds, file by file, and how it was made."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from builder.commit import canonical_json, sha256_text, write_atomically
from generation.classes import ClassEntry
from generation.errors import UserError

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class ShardRecord:
    """One committed Parquet file; `per_class` counts its rows by class id."""

    path: str  # relative to the release: CONFIG/SPLIT-*.parquet
    rows: int
    bytes: int
    sha256: str
    fingerprint: str
    per_class: dict[str, int]

    @property
    def config(self) -> str:
        return self.path.split("/")[0]

    @property
    def split(self) -> str:
        return self.path.split("/")[1].split("-")[0]


@dataclass(frozen=True)
class Manifest:
    """A release. kind: real images never carry the mark of synthetic media, and the reverse.

    dataset: the real data set whose classes these are. regime: A, the generator never saw that
    set; B, it was fine-tuned on it; C, it is conditioned on real images; None for real images.
    origin: the recipe and the build requests, or the source and crop rule of real images.
    documents: SHA-256 of what is written for people (README.md and its picture), by name.
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
        counts: Counter[str] = Counter()
        for shard in self.shards:
            if (shard.config, shard.split) == (config, split):
                counts.update(shard.per_class)
        return counts

    def splits(self) -> dict[str, list[str]]:
        """Split names of each configuration, in the order of the files."""
        found: dict[str, list[str]] = {}
        for shard in self.shards:
            names = found.setdefault(shard.config, [])
            if shard.split not in names:
                names.append(shard.split)
        return found

    def write(self, release: Path) -> None:
        write_atomically(release / MANIFEST_FILE, self._text().encode())

    def is_written(self, release: Path) -> bool:
        """Whether this manifest stands in `release`, whatever documents it has been given there."""
        path = release / MANIFEST_FILE
        try:
            standing = read_manifest(release)
        except UserError:
            return False
        return path.read_text() == replace(self, documents=standing.documents)._text()

    def _text(self) -> str:
        content = {**asdict(self), "content_sha256": self.content_sha256}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(release: Path) -> Manifest:
    """Raises UserError if `release` has no manifest or one that does not fit its own hash."""
    path = release / MANIFEST_FILE
    if not path.is_file():
        raise UserError(f"{release} is not a finished release: no {MANIFEST_FILE} there")
    try:
        content = json.loads(path.read_text())
        stated = content.pop("content_sha256")
        content["classes"] = tuple(ClassEntry(**entry) for entry in content["classes"])
        content["shards"] = tuple(ShardRecord(**shard) for shard in content["shards"])
        manifest = Manifest(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if stated != manifest.content_sha256:
        raise UserError(f"{path} was changed after it was written: its own hash does not fit")
    return manifest
