"""Releases behind a URL: the same bytes as in a folder, whatever happens to the store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from release.files.commit import remove_temporaries, write_atomically
from release.files.storage import (
    StorageError,
    exists,
    file_size,
    list_files,
    read_bytes,
    read_files,
    release_name,
    release_path,
    split_release,
)
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest, standing_manifest
from release.layout.readme import noted_documents
from release.layout.shard_commit import committed_record, committed_records, marker_path
from tests.builder.build_command import build
from tests.conftest import ROOT, release_bytes
from tests.forked_commands import run
from tests.servers.faulty_store import BUCKET


@pytest.fixture(scope="module")
def in_folder(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("folder") / "release"
    result = run(build(stand_in_recipe, release))
    assert result.returncode == 0, result.stderr
    return release


def url_bytes(url: str) -> dict[str, bytes]:
    """As conftest.release_bytes, behind a URL."""
    release = release_path(url)
    found = read_files(release, list_files(release))
    return {name: data for name, data in found.items() if not name.startswith("sidecars/")}


def test_what_is_written_is_read_listed_and_replaced(place: str):
    release = release_path(place)
    assert list_files(release) == {}
    write_atomically(release / "a/b.json", b"one")
    write_atomically(release / "c", b"four")
    write_atomically(release / "a/b.json", b"three")
    assert list_files(release) == {"a/b.json": 5, "c": 4}
    assert read_files(release, ["c", "absent", "a/b.json"]) == {"c": b"four", "a/b.json": b"three"}
    assert (exists(release / "c"), exists(release / "absent")) == (True, False)
    assert file_size(release / "c") == 4
    for read in (read_bytes, file_size):
        with pytest.raises(FileNotFoundError):
            read(release / "absent")
    remove_temporaries(release)
    assert list_files(release) == {"a/b.json": 5, "c": 4}


def test_a_release_in_s3_has_the_bytes_of_one_in_a_folder(
    stand_in_recipe: Path, in_folder: Path, s3: dict[str, str], tmp_path: Path
):
    url = f"s3://{BUCKET}/whole/release"
    result = run(build(stand_in_recipe, url)[:-1], **s3)
    assert result.returncode == 0, result.stderr
    assert url_bytes(url) == release_bytes(in_folder)
    release = release_path(url)
    assert (
        load_images(release, "32", "train").sha256 == load_images(in_folder, "32", "train").sha256
    )
    assert read_manifest(release) == read_manifest(in_folder)
    snippet = "\n".join(line.strip() for line in result.stdout.splitlines()[2:])
    (tmp_path / "load.py").write_text(f"{snippet}\nprint(len(images), images[0]['image'].size)\n")
    loaded = subprocess.run(
        [sys.executable, tmp_path / "load.py"],
        env=os.environ | s3 | {"HF_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.stdout == "12 (32, 32)\n", loaded.stderr


def test_markers_are_checked_one_by_one_and_all_at_once(in_folder: Path):
    shards = read_manifest(in_folder).shards
    found = committed_records(in_folder, shards)
    assert found == {shard.path: shard for shard in shards}
    assert all(committed_record(in_folder, shard) == shard for shard in shards)
    assert marker_path(in_folder, shards[0].path).read_bytes()


@pytest.mark.parametrize(
    ("text", "release", "parts"),
    [
        ("releases/mine", "releases/mine", []),
        ("releases/mine:32:train", "releases/mine", ["32", "train"]),
        ("s3://bucket/mine:32", "s3://bucket/mine", ["32"]),
    ],
)
def test_a_url_keeps_its_colon(text: str, release: str, parts: list[str]):
    assert split_release(text) == (release, parts)


def test_names_of_releases(tmp_path: Path):
    assert release_name(release_path(str(tmp_path / "mine"))) == "mine"
    assert release_name(release_path(f"file://{tmp_path}/mine")) == "mine"
    assert release_name(release_path("memory://a/mine/")) == "mine"


def test_unknown_storage_lists_what_is_known(stand_in_recipe: Path):
    result = run(build(stand_in_recipe, "s4://bucket/release"))
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert "unknown kind of storage 's4'; known: " in result.stderr
    assert " s3, " in result.stderr


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from release.files.storage import release_path\n"
        "try: release_path('s3://bucket/release')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == (
        "UserError s3://bucket/release needs a package that is not installed: pip install s3fs\n"
    )


def test_a_store_out_of_reach_is_one_line(stand_in_recipe: Path, s3: dict[str, str]):
    nobody = s3 | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    result = run(build(stand_in_recipe, f"s3://{BUCKET}/away"), **nobody)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert "the store failed" in result.stderr


def test_a_bucket_that_does_not_exist_is_one_line(stand_in_recipe: Path, s3: dict[str, str]):
    result = run(build(stand_in_recipe, "s3://no-such-bucket/release"), **s3)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert "s3://no-such-bucket/release/lease/000001.json cannot be written: The" in result.stderr


def test_a_store_that_fails_is_no_release_without_a_manifest(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """A failed read that counted as no manifest would have a release begun anew."""
    release = release_path("memory://failing/release")
    assert standing_manifest(release) is None
    write_atomically(release / "manifest.json", (in_folder / "manifest.json").read_bytes())
    manifest = standing_manifest(release)
    assert manifest is not None

    def out_of_reach(*_: object) -> bytes:
        raise TimeoutError("no answer")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", out_of_reach)
    for read in (standing_manifest, noted_documents, manifest.is_written):
        with pytest.raises(StorageError, match="no answer"):
            read(release)
    (in_folder.parent / "manifest.json").write_text("{")
    assert standing_manifest(in_folder.parent) is None
