"""What is finished stays: whatever byte goes bad, wherever a build is killed, however it grows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset

from builder.builds.build import build_release, plan_build
from builder.builds.run import Outcome, RunSettings
from builder.planning.recipe import load_recipe
from builder.release.repair import repair_release
from builder.release.verify import verify_release
from builder.state import SyntheticState, read_state
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from release.layout.readme import names_each_file
from release.layout.shard_commit import committed_records
from tests.conftest import release_bytes
from tests.in_process import InProcess

PER_CLASS = 4
MORE = 8


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(monkeypatch)


def build(recipe_file: Path, release: Path, per_class: int = PER_CLASS) -> Outcome:
    recipe = load_recipe(str(recipe_file))
    release.mkdir(parents=True, exist_ok=True)
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.chain(None), classes, per_class, release)
    return build_release(plan, RunSettings(), lambda _: None)


@pytest.fixture
def finished(here: InProcess, stand_in_recipe: Path, tmp_path: Path) -> Path:
    release = tmp_path / "release"
    build(stand_in_recipe, release)
    here.made.clear()
    return release


def rows(release: Path, cache: Path, streaming: bool = False) -> int:
    data = load_dataset(
        str(release), "32", split="train", cache_dir=str(cache), streaming=streaming
    )
    return sum(1 for _ in data) if streaming else len(data)


def flip(path: Path, byte: int = 5) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 0x80
    path.write_bytes(content)


def report(release: Path) -> list[str]:
    manifest = read_manifest(release)
    return [str(p) for p in verify_release(release, manifest, 1, lambda _: None).problems]


def mend(release: Path) -> None:
    manifest = read_manifest(release)
    found = verify_release(release, manifest, 1, lambda _: None)
    repair_release(release, manifest, found, RunSettings(), lambda _: None)


def harm_marker(release: Path, how: str) -> Path:
    marker = sorted((release / "markers/16").iterdir())[0]
    if how == "bit":
        flip(marker)
    elif how == "gone":
        marker.unlink()
    elif how == "empty":
        marker.write_bytes(b"")
    else:
        content = json.loads(marker.read_bytes())
        content["shard"]["sha256"] = "0" * 64
        marker.write_text(json.dumps(content))
    return marker


@pytest.mark.parametrize("how", ["bit", "gone", "empty", "another hash"])
def test_a_bad_marker_is_written_again_from_the_manifest(
    finished: Path, here: InProcess, stand_in_recipe: Path, how: str
):
    before = release_bytes(finished)
    harm_marker(finished, how)
    assert not build(stand_in_recipe, finished).quarantined
    assert here.made == []
    assert release_bytes(finished) == before


@pytest.mark.parametrize("how", ["bit", "another hash"])
@pytest.mark.usefixtures("here")
def test_a_bad_marker_is_mended_by_repair(finished: Path, how: str):
    before = release_bytes(finished)
    marker = harm_marker(finished, how)
    (problem,) = report(finished)
    assert problem.startswith(str(marker.relative_to(finished)))
    mend(finished)
    assert report(finished) == []
    assert release_bytes(finished) == before


def test_a_marker_has_the_word_where_the_manifest_is_older_than_the_shard(
    finished: Path, here: InProcess, stand_in_recipe: Path
):
    """Killed between a shard that was made again with other bytes and the manifest."""
    plan = _plan(stand_in_recipe, finished)
    manifest = read_manifest(finished)
    first = manifest.shards[0]
    shards = (replace(first, sha256="0" * 64), *manifest.shards[1:])
    replace(manifest, shards=shards).write(finished)
    build(stand_in_recipe, finished)
    assert here.made == []
    assert read_manifest(finished).shards == manifest.shards
    assert len(committed_records(finished, plan.shards)) == len(manifest.shards)


def _plan(recipe_file: Path, release: Path):
    recipe = load_recipe(str(recipe_file))
    classes = load_classes(recipe.classes)
    return plan_build(recipe, recipe.chain(None), classes, PER_CLASS, release)


def test_a_rerun_that_fails_lists_no_fewer_images(
    finished: Path, here: InProcess, stand_in_recipe: Path
):
    before = read_manifest(finished)
    lost = next(r.path for r in before.shards if r.config == "32")
    (finished / lost).unlink()
    here.failing = lost
    outcome = build(stand_in_recipe, finished)
    assert [failure.path for failure in outcome.quarantined] == [lost]
    assert outcome.manifest == before == read_manifest(finished)
    here.failing = ""
    mend(finished)
    assert report(finished) == []


@pytest.mark.parametrize("how", ["bit", "gone", "another stage"])
def test_a_bad_build_json_is_one_line_and_repaired(
    finished: Path, here: InProcess, stand_in_recipe: Path, how: str
):
    before = release_bytes(finished)
    state = finished / "build.json"
    if how == "bit":
        flip(state)
    elif how == "gone":
        state.unlink()
    else:
        fingerprint = json.loads(state.read_text())["stages"]["16"]
        state.write_text(state.read_text().replace(fingerprint, "0" * 64))
    (problem,) = report(finished)
    assert problem.startswith("build.json: ")
    with pytest.raises(UserError, match=r"build\.json cannot be read|holds"):
        build(stand_in_recipe, finished)
    mend(finished)
    assert report(finished) == []
    assert here.made == []
    assert release_bytes(finished) == before


@pytest.mark.parametrize(
    "name", [".build.json.0a1b2c3d.tmp", "lease/000001.json", "lease/.x.00ff.tmp", "32/.a.0f.tmp"]
)
def test_what_a_killed_process_leaves_does_not_make_a_folder_foreign(tmp_path: Path, name: str):
    release = tmp_path / "release"
    (release / name).parent.mkdir(parents=True)
    (release / "markers/16").mkdir(parents=True)
    (release / name).write_bytes(b"")
    assert read_state(release, SyntheticState) is None


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "x.tmp", ".x.tmp", "leases/000001.json"])
def test_what_is_somebody_elses_does(tmp_path: Path, name: str):
    release = tmp_path / "release"
    (release / name).parent.mkdir(parents=True)
    (release / name).write_bytes(b"")
    with pytest.raises(UserError, match="is not empty and holds no release"):
        read_state(release, SyntheticState)


@pytest.mark.parametrize("file_format", ["parquet", "arrow"])
def test_a_release_that_grows_loads_as_it_was_until_it_is_whole(
    here: InProcess, stand_in_recipe: Path, tmp_path: Path, file_format: str
):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'format = "{file_format}"\n{stand_in_recipe.read_text()}')
    release, cache = tmp_path / "release", tmp_path / "cache"
    build(recipe, release)
    small = (release / "README.md").read_bytes()
    here.made.clear()
    shards = len(read_manifest(release).shards)
    for left in (0, 1, shards - 1):  # killed before the first shard, after one, before the last
        here.left = left
        here.made.clear()
        with pytest.raises(KeyboardInterrupt):
            build(recipe, release, MORE)
        assert rows(release, cache / f"a{left}") == 3 * PER_CLASS
        assert rows(release, cache / f"b{left}", streaming=True) == 3 * PER_CLASS
        assert names_each_file(release)
        assert report(release) == []
        if left:
            _restart(release, recipe, here)
    here.left = float("inf")
    build(recipe, release, MORE)
    assert rows(release, cache / "whole") == 3 * MORE
    assert not names_each_file(release)
    assert len((release / "README.md").read_bytes()) < len(small) + 100
    assert report(release) == []


def _restart(release: Path, recipe: Path, here: InProcess) -> None:
    """As it was before it grew."""
    shutil.rmtree(release)
    here.left = float("inf")
    build(recipe, release)


def test_a_card_outlives_an_unfinished_extension(
    finished: Path, here: InProcess, stand_in_recipe: Path
):
    readme = finished / "README.md"
    readme.write_bytes(readme.read_bytes() + b"\nA card.\n")
    here.left = 1
    with pytest.raises(KeyboardInterrupt):
        build(stand_in_recipe, finished, MORE)
    assert readme.read_text().endswith("\nA card.\n")
    assert report(finished) == []


def test_repair_of_a_growing_release_leaves_what_is_new_alone(
    finished: Path, here: InProcess, stand_in_recipe: Path, tmp_path: Path
):
    here.left = 3
    with pytest.raises(KeyboardInterrupt):
        build(stand_in_recipe, finished, MORE)
    here.left = float("inf")
    (finished / "README.md").write_bytes(b"")
    mend(finished)
    assert report(finished) == []
    assert rows(finished, tmp_path / "cache") == 3 * PER_CLASS
    build(stand_in_recipe, finished, MORE)
    assert rows(finished, tmp_path / "cache2") == 3 * MORE
