"""For all tests of this folder: a release with its card's facts; a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from release.layout.manifest import Manifest
from release.layout.readme import write_readme
from tests.cards.tiny_card import CLASSES, ORIGIN, write_shard

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
