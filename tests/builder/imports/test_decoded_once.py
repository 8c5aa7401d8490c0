"""An import decodes each image once, for the file of originals and all views made along with it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.imports import jobs, layout, row_file
from builder.imports.jobs import OriginalJob, ViewJob, plan_jobs
from release.files.storage import release_path
from release.images.decoding import decode_rgb
from release.layout.image_index import from_text, shard_index
from release.layout.manifest import ShardRecord
from release.layout.shard_commit import forget_shard, marker_path, sidecar_name
from release.real_sources.opening import open_source
from tests.builder.imports.serial_import import SerialImport
from tests.conftest import release_bytes

VIEWS = [8, 16]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 of colour in two classes, one of which cannot be decoded."""
    random = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "photos" / "train" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(40, 30, 3), dtype=np.uint8)).save(path)
    path.write_bytes(b"no image")
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each image that jobs decode."""
    found: list[int] = []

    def counting(data: bytes, *, real: bool = False) -> Image.Image:
        found.append(len(data))
        return decode_rgb(data, real=real)

    monkeypatch.setattr(jobs, "decode_rgb", counting)
    return found


def test_every_image_is_decoded_once_for_all_its_views(
    importing: SerialImport, photos: Path, tmp_path: Path, decoded: list[int]
):
    manifest = importing(photos, tmp_path / "out", VIEWS, on_bad_images="skip")
    assert len(decoded) == 20
    assert {made.split("/")[0] for made in importing.made} == {"original"}
    assert [manifest.rows(config, "train") for config in ("original", "8", "16")] == [19] * 3


def test_views_made_along_have_the_bytes_of_views_made_later(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(layout, "SHARD_BYTES", 7 * 2 * 16 * 16)  # several files of one view
    monkeypatch.setattr(layout, "_files_for", lambda _: 1)
    monkeypatch.setattr(row_file, "ROW_GROUP_BYTES", 4000)
    importing(photos, tmp_path / "along", VIEWS, on_bad_images="skip")
    importing(photos, tmp_path / "later", [], on_bad_images="skip")
    importing(photos, tmp_path / "later", [8], on_bad_images="skip")
    importing(photos, tmp_path / "later", [16], on_bad_images="skip")
    assert [made.split("-")[0] for made in importing.made] == ["16/train"] * 3
    along, later = release_bytes(tmp_path / "along"), release_bytes(tmp_path / "later")
    same = along.keys() - {"README.md", "manifest.json"}  # which name the release
    assert {name: along[name] for name in same} == {name: later[name] for name in same}


@pytest.mark.parametrize("cut", ["before the views count", "between two views"])
def test_an_import_killed_between_its_commits_makes_the_views_that_do_not_count(
    importing: SerialImport,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoded: list[int],
    cut: str,
):
    whole = importing(photos, tmp_path / "whole", VIEWS, on_bad_images="skip")
    left = [1 if cut == "before the views count" else 2]
    commit = row_file.RowFile.commit

    def killed(file: row_file.RowFile, made_from: str) -> ShardRecord:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return commit(file, made_from)

    with monkeypatch.context() as patch:
        patch.setattr(row_file.RowFile, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            importing(photos, tmp_path / "out", VIEWS, on_bad_images="skip")
    decoded.clear()
    assert importing(photos, tmp_path / "out", VIEWS, on_bad_images="skip").shards == whole.shards
    made = [name.split("/")[0] for name in importing.made]
    assert made == (["8", "16"] if cut == "before the views count" else ["16"])
    assert len(decoded) == 19 * len(made)


def test_an_error_in_the_middle_leaves_no_file(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made: list[int] = []

    def failing(image: Image.Image, resolution: int, rule: str) -> np.ndarray:  # noqa: ARG001
        made.append(resolution)
        if len(made) > 9:
            raise MemoryError
        return np.zeros((resolution, resolution, 3), np.uint8)

    monkeypatch.setattr(jobs, "make_view", failing)
    with pytest.raises(MemoryError):
        importing(photos, tmp_path / "out", VIEWS)
    assert list(release_bytes(tmp_path / "out")) == ["build.json"]


def test_views_that_stand_are_not_made_along(
    importing: SerialImport, photos: Path, tmp_path: Path, decoded: list[int]
):
    out = tmp_path / "out"
    manifest = importing(photos, out, VIEWS, on_bad_images="skip")
    paths = {shard.config: shard.path for shard in manifest.shards}
    forget_shard(out, paths["original"])
    forget_shard(out, paths["16"])
    standing = marker_path(out, paths["8"]).stat().st_mtime_ns
    decoded.clear()
    assert importing(photos, out, VIEWS, on_bad_images="skip").shards == manifest.shards
    assert importing.made == [paths["original"]]
    assert marker_path(out, paths["8"]).stat().st_mtime_ns == standing
    assert len(decoded) == 20


def test_behind_a_url_each_file_is_made_alone(photos: Path, tmp_path: Path):
    """There a whole file is in memory until it is sent."""
    source = open_source(str(photos))
    files = list(layout.stretches(source, {"train": 1}))

    def planned(release: str) -> Sequence[OriginalJob | ViewJob]:
        place = release_path(release)
        return plan_jobs(str(photos), source, files, place, VIEWS, "center-crop")

    here, there = planned(str(tmp_path / "out")), planned("memory://somewhere/out")
    assert [len(j.views) for j in (*here, *there) if isinstance(j, OriginalJob)] == [2, 0]
    assert [job.path for job in here] == [job.path for job in there]


def test_runs_of_any_length_give_the_same_release(
    importing: SerialImport, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = []
    for name, images, size in (("one", 1, 1 << 20), ("few", 3, 1 << 20), ("small", 16, 1500)):
        monkeypatch.setattr(jobs, "RUN_IMAGES", images)
        monkeypatch.setattr(jobs, "RUN_BYTES", size)
        importing(photos, tmp_path / name / "out", VIEWS, on_bad_images="skip")
        found.append(release_bytes(tmp_path / name / "out"))
    assert found[0] == found[1] == found[2]


def test_the_index_of_an_import_has_the_hashes_of_the_bytes_that_stand_there(
    importing: SerialImport, photos: Path, tmp_path: Path
):
    out = tmp_path / "out"
    manifest = importing(photos, out, VIEWS, on_bad_images="skip")
    for record in manifest.shards:
        noted = json.loads((out / sidecar_name(record.path)).read_bytes())["images"]["rows"]
        content = (out / record.path).read_bytes()
        assert from_text(noted).equals(shard_index(content, "parquet"))
