"""What learns from a release reads only the files that its manifest lists."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import release_path
from release.layout.image_sets import iterate_tables, load_images
from release.layout.manifest import read_manifest
from release.layout.shard_files import require_unchanged
from release.streaming.encoded import index_images
from tests.sets.shapes import SIZE, make_images, write_release

READERS = {
    "decoded": lambda release: load_images(release, str(SIZE), "train"),
    "indexed": lambda release: index_images(release, str(SIZE), "train"),
    "labels": lambda release: list(iterate_tables(release, str(SIZE), "fit", ["label"])),
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "r", {"train": make_images(2, 0)})


def shard_of(release: Path) -> Path:
    return release / str(SIZE) / "train-00000000.parquet"


def flip(path: Path, place: int) -> None:
    """One byte, the file's size and modification time as before."""
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", [1200, -20, -6])  # an image, the footer, its length
def test_a_changed_byte_is_one_line_that_names_the_file(
    release: Path, reader: str, place: int
) -> None:
    READERS[reader](release)  # a file that was found good is hashed again once it is another
    flip(shard_of(release), place)
    with pytest.raises(UserError, match=r"train-00000000\.parquet is not the file that its mani"):
        READERS[reader](release)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_listed_and_missing_is_one_line(release: Path, reader: str) -> None:
    shard_of(release).unlink()
    with pytest.raises(UserError, match=r"parquet is not there, though its manifest lists it"):
        READERS[reader](release)


@pytest.mark.parametrize("reader", READERS)
def test_a_footer_that_the_manifest_knows_as_broken_is_one_line(release: Path, reader: str) -> None:
    path = shard_of(release)
    flip(path, -6)
    manifest = read_manifest(release)
    record = replace(manifest.shards[0], sha256=sha256_file(path))
    replace(manifest, shards=(record,)).write(release)
    with pytest.raises(UserError, match=r"train-00000000\.parquet cannot be read as Parquet"):
        READERS[reader](release)


def test_a_file_is_hashed_once_a_process(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(
        "release.layout.shard_files.sha256_file",
        lambda path: hashed.append(path) or sha256_file(path),
    )
    path, sha256 = shard_of(release), sha256_file(shard_of(release))
    for _ in range(3):
        require_unchanged(path, sha256)
    os.utime(path)
    require_unchanged(path, sha256)
    assert hashed == [path, path]


def test_a_store_is_read_by_the_same_rule(release: Path) -> None:
    store = release_path("memory://unchanged/r")
    for path in release.rglob("*.*"):
        (store / path.relative_to(release).as_posix()).write_bytes(path.read_bytes())
    whole = load_images(store, str(SIZE), "train")
    assert whole.sha256 == load_images(release, str(SIZE), "train").sha256
    flip(shard_of(release), 1200)
    name = shard_of(release).relative_to(release).as_posix()
    (store / name).write_bytes(shard_of(release).read_bytes())
    with pytest.raises(UserError, match="is not the file that its manifest lists"):
        load_images(store, str(SIZE), "train")
