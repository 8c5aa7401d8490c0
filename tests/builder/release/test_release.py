"""`release repair`, `extend` and `reproduce`: the same bytes again, and nothing else touched."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from builder.release.reproduce import Release
from release.errors import UserError
from release.files.storage import release_path
from release.layout.manifest import read_manifest
from tests.conftest import release_bytes
from tests.forked_commands import run
from tests.servers.faulty_store import BUCKET


@pytest.fixture(scope="module")
def built(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("release") / "release"
    build = ["build-dataset", "--recipe", stand_in_recipe, "--per-class", "5", "--out", release]
    assert run(build).returncode == 0
    return release


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "release"))


TRUST = ("--trust", "tests.stand_in")


def paths(release: Path, config: str) -> list[str]:
    return [s.path for s in read_manifest(release).shards if s.config == config]


def test_repair_makes_what_is_damaged_and_nothing_else(release: Path, built: Path):
    parent, child = paths(release, "8")[0], paths(release, "32")[1]
    os.truncate(release / parent, 100)
    (release / "markers" / child).with_suffix(".json").unlink()
    (release / "README.md").write_text("---\nlicense: none\n---\n")
    (release / "build.json").unlink()
    untouched = {p: p.stat().st_mtime_ns for p in release.glob("*/*.parquet")}
    result = run(["release", "repair", release, *TRUST, "--workers", "1", "--json"])
    assert result.returncode == 0, result.stderr + result.stdout
    report = json.loads(result.stdout)
    assert (sorted(report["made_again"]), report["changed"]) == (sorted([parent, child]), [])
    assert release_bytes(release) == release_bytes(built)
    touched = {p for p, time in untouched.items() if p.stat().st_mtime_ns != time}
    assert touched == {release / parent, release / child}


def test_an_intact_release_is_left_alone(built: Path):
    before = release_bytes(built)
    result = run(["release", "repair", built, *TRUST])
    assert (result.returncode, "intact (0 shards made again)" in result.stdout) == (0, True)
    assert release_bytes(built) == before


def test_repair_needs_no_class_list(release: Path, stand_in_recipe: Path):
    os.truncate(release / paths(release, "8")[0], 100)
    listed = stand_in_recipe.parent / "three.csv"
    away = listed.rename(listed.with_suffix(".away"))
    try:
        result = run(["release", "repair", release, "--workers", "1", *TRUST])
    finally:
        away.rename(listed)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("intact (1 shard made again)")


def test_extend_is_the_build_of_more(release: Path):
    result = run(
        ["release", "extend", release, *TRUST, "--per-class", "7", "--workers", "1", "--json"]
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"]["32"] == {"train": 21}
    assert run(["release", "verify", release]).returncode == 0
    less = run(["release", "extend", release, *TRUST, "--per-class", "6"])
    assert (less.returncode, len(less.stderr.splitlines())) == (2, 1)
    assert "has 7 images of each class already" in less.stderr


def test_reproduce_gives_the_same_bytes(built: Path, tmp_path: Path):
    image_id = pq.read_table(built / paths(built, "32")[0])["image_id"][0].as_py()
    one = ["release", "reproduce", built, *TRUST, image_id, "--out", tmp_path / "pairs", "--json"]
    result = run([*one, "--all-stages"])
    assert result.returncode == 0, result.stderr
    images = json.loads(result.stdout)["images"]
    assert [image["image_id"].split("-")[1] for image in images] == ["r8", "r16", "r32"]
    assert all(image["same_bytes"] and image["made_with"] is None for image in images)
    with Image.open(tmp_path / "pairs" / f"{image_id}.png") as pair:
        assert pair.size == (66, 32)
    sampled = run(["release", "reproduce", built, *TRUST, "--sample", "20", "--seed", "0"])
    assert "20 of 20 images have the same pixels" in sampled.stdout
    chains = run(["release", "reproduce", built, *TRUST, "--sample", "5", "--all-stages"])
    assert "15 of 15 images have the same pixels" in chains.stdout


def test_reproduce_tells_what_differs(release: Path):
    shard = paths(release, "8")[0]
    marker = (release / "markers" / shard).with_suffix(".json")
    content = json.loads(marker.read_text())
    content["versions"]["torch"] = "1.0"
    marker.write_text(json.dumps(content))
    table = pq.read_table(release / shard)
    seeds = [seed + 1 for seed in table["seed"].to_pylist()]
    column = table.schema.get_field_index("seed")
    pq.write_table(table.set_column(column, table.schema.field(column), [seeds]), release / shard)
    result = run(["release", "reproduce", release, *TRUST, table["image_id"][0].as_py()])
    assert result.returncode == 1
    assert "other pixels, 100.0% of them" in result.stdout
    assert "made with torch 1.0, not" in result.stdout
    unknown = run(["release", "reproduce", release, *TRUST, "s7-r8-c9-000000-0"])
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)
    assert "its names are as s7-r8-c0-000000-0" in unknown.stderr


def test_a_sample_of_more_rows_than_a_shard_has_is_one_line(built: Path):
    manifest = read_manifest(built)
    many = tuple(replace(record, rows=10**9) for record in manifest.shards)
    source = Release(built, replace(manifest, shards=many))
    with pytest.raises(UserError, match=r"rows, the manifest says 1000000000: see `release ver"):
        source.draw(3, 0, last_stage=False)


def test_reproduce_with_the_embedded_model(tmp_path: Path):
    release = tmp_path / "release"
    build = ["build-dataset", "--recipe", "fashion-mnist", "--per-class", "1"]
    built = run([*build, "--classes", "dress,sandal", "--out", release, "--workers", "1"])
    assert built.returncode == 0, built.stderr
    again = ["release", "reproduce", release, "s2023-r32-dress-000000-0", "--all-stages", "--json"]
    images = json.loads(run(again).stdout)["images"]
    assert [image["same_bytes"] for image in images] == [True, True]


def test_a_release_behind_a_url(built: Path, s3: dict[str, str], tmp_path: Path):
    url = f"s3://{BUCKET}/release-commands/release"
    there = release_path(url)
    there.fs.put(f"{built}/", there.path, recursive=True)
    assert run(["release", "verify", url], **s3).returncode == 0
    shard = paths(built, "16")[0]
    there.fs.pipe_file((there / shard).path, b"PAR1")
    (there / "README.md").unlink()
    verified = run(["release", "verify", url, "--json"], **s3)
    assert verified.returncode == 1, verified.stderr
    problems = json.loads(verified.stdout)["problems"]
    assert {p["path"] for p in problems} == {shard, "README.md"}
    repaired = run(["release", "repair", url, *TRUST, "--workers", "1", "--json"], **s3)
    assert repaired.returncode == 0, repaired.stderr + repaired.stdout
    assert json.loads(repaired.stdout)["made_again"] == [shard]
    there.fs.get(there.path, str(tmp_path / "copy"), recursive=True)
    assert release_bytes(tmp_path / "copy") == release_bytes(built)
    image_id = pq.read_table(built / shard)["image_id"][0].as_py()
    reproduced = run(["release", "reproduce", url, *TRUST, image_id], **s3)
    assert f"{image_id}: the same bytes" in reproduced.stdout, reproduced.stderr
