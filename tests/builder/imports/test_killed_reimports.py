"""A re-import that is killed, or finds what a killed one left: views stay, no file is left over."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.builds.finish import finish_release
from builder.imports import release as real
from builder.imports.row_file import RowFile
from builder.release.verify import verify_release
from builder.shards.view_shard import plan_view
from release.errors import UserError
from release.images.encoding import SYNTHETIC_XMP, encode_image
from release.layout.manifest import Manifest, read_manifest
from release.layout.shard_commit import marker_path
from release.layout.training_views import lagging, new_view, with_view
from tests.builder.imports.serial_import import SerialImport
from tests.builder.imports.test_import_changes import interrupt

VIEW = "8-jpeg"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of a few images, train and test."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = tmp_path / "photos" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 256, (12, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def problems(release: Path) -> list[str]:
    report = verify_release(release, read_manifest(release), 1, lambda _: None)
    return [str(problem) for problem in report.problems]


def with_training_view(release: Path) -> Manifest:
    manifest = read_manifest(release)
    view = new_view(manifest, 8, 90, "4:4:4", None, VIEW)
    records = [job.run() for job in plan_view(release.absolute(), manifest, view)]
    return finish_release(release, with_view(manifest, view, records))


def kill_commits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RowFile, "commit", interrupt)


def kill_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(real, "finish_release", interrupt)


@pytest.mark.parametrize("back", [False, True], ids=["changed", "changed and back"])
@pytest.mark.parametrize("kill", [kill_commits, kill_the_end])
def test_training_views_outlive_a_killed_re_import(
    importing: SerialImport,
    photos: Path,
    tmp_path: Path,
    kill: Callable[[pytest.MonkeyPatch], None],
    back: bool,
) -> None:
    release, gone = tmp_path / "release", photos / "train/cat/0.png"
    importing(photos, release)
    with_training_view(release)
    content = gone.read_bytes()
    gone.unlink()
    with pytest.MonkeyPatch.context() as patch:
        kill(patch)
        with pytest.raises(KeyboardInterrupt):
            importing(photos, release)
    if back:
        gone.write_bytes(content)
    manifest = importing(photos, release)
    assert [view["name"] for view in manifest.origin["training_views"]] == [VIEW]
    assert {text.split(":")[0] for text in problems(release)} <= {VIEW}
    assert all("lags behind" in text for text in problems(release))
    assert bool(problems(release)) == bool(lagging(manifest))
    assert not (release / real.EARLIER).exists()


def test_a_file_that_a_killed_import_had_not_marked_goes_with_its_images(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    importing(photos, release)
    (photos / "train/cat/0.png").unlink()
    with monkeypatch.context() as patch:
        kill_commits(patch)
        with pytest.raises(KeyboardInterrupt):
            importing(photos, release)
    (photos / "train/cat/1.png").unlink()
    mine = release / "8/train-mine.parquet"
    mine.write_bytes(b"somebody's")
    importing(photos, release)
    assert problems(release) == ["8/train-mine.parquet: is not in the manifest"]
    assert mine.read_bytes() == b"somebody's"


def test_a_lost_marker_does_not_hide_that_an_image_changed(
    importing: SerialImport, photos: Path, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    before = importing(photos, release)
    original = next(r.path for r in before.shards if r.path.startswith("original/train"))
    marker_path(release, original).unlink()
    importing(photos, release)
    assert original not in importing.made  # its marker is written again
    marker_path(release, original).unlink()
    Image.new("RGB", (14, 12), "red").save(photos / "train/cat/0.png")
    after = importing(photos, release)
    assert original in importing.made
    assert before.content_sha256 != after.content_sha256
    assert problems(release) == []


def test_an_image_that_says_it_was_generated_is_no_real_one(
    importing: SerialImport, photos: Path, tmp_path: Path
) -> None:
    made = encode_image(np.zeros((12, 14, 3), np.uint8), "webp-lossless", synthetic=True)
    assert SYNTHETIC_XMP in made
    (photos / "train/cat/made.webp").write_bytes(made)
    plain = Image.open(io.BytesIO(made))
    plain.save(photos / "train/cat/clean.png")
    with pytest.raises(UserError, match=r"made\.webp of train carries the mark of synthetic media"):
        importing(photos, tmp_path / "release")
    manifest = importing(photos, tmp_path / "release", on_bad_images="skip")
    assert [left["file"] for left in manifest.origin["left_out"]] == ["cat/made.webp"]
    assert problems(tmp_path / "release") == []
    assert replace(manifest, documents={}).kind == "real"


@pytest.mark.parametrize("killed", [False, True])
def test_a_view_whose_marker_is_lost_keeps_its_file(
    importing: SerialImport, photos: Path, tmp_path: Path, killed: bool
) -> None:
    release = tmp_path / "release"
    importing(photos, release)
    listed = [s.path for s in with_training_view(release).shards if s.config == VIEW]
    marker_path(release, listed[0]).unlink()
    if killed:
        gone = photos / "train/cat/0.png"
        content = gone.read_bytes()
        gone.unlink()
        with pytest.MonkeyPatch.context() as patch:
            kill_the_end(patch)
            with pytest.raises(KeyboardInterrupt):
                importing(photos, release)
        gone.write_bytes(content)
    manifest = importing(photos, release)
    kept = [s.path for s in manifest.shards if s.config == VIEW and (release / s.path).is_file()]
    assert kept == (listed if not killed else [path for path in listed if "test" in path])
