"""A release with its card's facts, for all tests of this folder."""

from pathlib import Path

import pytest

from release.layout.manifest import Manifest
from release.layout.readme import write_readme
from tests.cards.tiny_card import CLASSES, ORIGIN, write_shard


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two shards; the file that is read first holds the higher indices, backwards."""
    folder = tmp_path / "garments"
    shards = (write_shard(folder, 2, 3, True), write_shard(folder, 0, 2, True))
    shards = (*shards, write_shard(folder, 3, 6, False))
    manifest = Manifest(
        name="garments",
        kind="synthetic",
        dataset="fashion-mnist",
        regime="B",
        license="mit",
        classes=CLASSES,
        origin=ORIGIN,
        shards=shards,
    )
    write_readme(folder, manifest)
    manifest.write(folder)
    return folder
