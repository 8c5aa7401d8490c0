"""`release verify`: an intact release has no problem, and each kind of damage is one line."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from builder.release.checks.rejections import rejection_problems
from builder.release.verify import verify_release
from release.files.commit import sha256_file
from release.images.encoding import encode_image
from release.layout.image_sets import decode
from release.layout.manifest import Manifest, ShardRecord, read_manifest
from release.layout.shard_commit import marker_path
from tests.conftest import STAND_IN_RECIPE, release_bytes
from tests.forked_commands import run
from tests.sets.shapes import encode_table

PER_CLASS = 5


@pytest.fixture(scope="module")
def built(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("verify") / "release"
    result = run(
        ["build-dataset", "--recipe", stand_in_recipe, "--per-class", PER_CLASS, "--out", release]
    )
    assert result.returncode == 0, result.stderr
    return release


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "release"))


def problems(release: Path) -> list[str]:
    report = verify_release(release, read_manifest(release), 2, lambda _: None)
    return [str(problem) for problem in report.problems]


def first_shard(release: Path, config: str = "32") -> str:
    return next(s.path for s in read_manifest(release).shards if s.config == config)


def rewrite(release: Path, path: str, change: Callable[[dict[str, list[Any]]], None]) -> None:
    """Change rows of a shard, and marker and manifest with it: only the plan can tell."""
    table = pq.read_table(release / path)
    columns = table.to_pydict()
    columns["image"] = [image["bytes"] for image in columns["image"]]
    change(columns)
    content = encode_table(table.schema, columns)
    (release / path).write_bytes(content)
    manifest = read_manifest(release)
    old = next(s for s in manifest.shards if s.path == path)
    new = replace(old, bytes=len(content), sha256=sha256_file(release / path))
    marker = json.loads(marker_path(release, path).read_text())
    marker_path(release, path).write_text(json.dumps(marker | {"shard": asdict(new)}))
    write_readme_and_manifest(
        release, replace(manifest, shards=tuple(new if s == old else s for s in manifest.shards))
    )


def write_readme_and_manifest(release: Path, manifest: Manifest) -> None:
    from release.layout.readme import write_readme

    write_readme(release, manifest)
    documents = {"README.md": sha256_file(release / "README.md")}
    replace(manifest, documents=documents).write(release)


def test_an_intact_release(built: Path):
    result = run(["release", "verify", built, "--json"])
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["intact"], report["problems"]) == (True, [])
    assert (report["shards"], report["images"]) == (12, 3 * 3 * PER_CLASS)


def test_damage_is_listed_a_line_each_and_exits_with_one(release: Path):
    truncated, flipped, deleted = (first_shard(release, c) for c in ("8", "16", "32"))
    os.truncate(release / truncated, 100)
    content = bytearray((release / flipped).read_bytes())
    content[len(content) // 2] ^= 1
    (release / flipped).write_bytes(content)
    (release / deleted).unlink()
    marker_path(release, deleted).unlink()
    result = run(["release", "verify", release])
    assert result.returncode == 1
    marker = marker_path(release, deleted).relative_to(release)
    lines = result.stdout.splitlines()
    assert any(line.startswith(f"{truncated}: has 100 bytes, the manifest says") for line in lines)
    assert any(line.startswith(f"{flipped}: has SHA-256") for line in lines)
    assert f"{deleted}: is missing" in lines
    assert f"{marker}: is missing" in lines
    assert "README.md: its load contract cannot be checked" in result.stdout
    assert "5 problems (12 shards, 45 images" in lines[-1]


def set_first(column: str, value: Any) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[column][0] = value

    return change


def repaint(encoding: str, side: int, *, synthetic: bool) -> Callable[[dict[str, list[Any]]], None]:
    def change(columns: dict[str, list[Any]]) -> None:
        pixels = decode(columns["image"][0])[:side, :side]
        columns["image"][0] = encode_image(pixels, encoding, synthetic=synthetic)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_first("seed", 1), "seed is not the planned one in 1 of 8 rows, the first s7-r32-c0-"),
        (set_first("image_id", "other"), "image_id is not the planned one in 1 of 8 rows"),
        (set_first("prompt", "a pear"), "prompt is not the planned one in 1 of 8 rows"),
        (set_first("attempt", 1), "seed is not the planned one"),
        (set_first("index", 3), "its classes and indices are not the planned ones"),
        (set_first("class_id", "c1"), "its images of each class are not as many as the manifest"),
        (set_first("parent_image_id", "s7-r16-c1-000009-0"), "parent_image_id is not in the paren"),
        (set_first("image", b"no image"), "image cannot be decoded: 1 of 8, the first s7-r32-c0-0"),
        (repaint("png", 32, synthetic=False), "image lacks the mark of synthetic media: 1 of 8"),
        (repaint("png", 16, synthetic=True), "image is 16 x 16 RGB, not 32 x 32 RGB: 1 of 8"),
    ],
)
def test_rows_that_fit_the_manifest_and_not_the_plan(
    release: Path, change: Callable[[dict[str, list[Any]]], None], expected: str
):
    path = first_shard(release)
    rewrite(release, path, change)
    found = problems(release)
    assert any(line.startswith(f"{path}: {expected}") for line in found), found


def test_releases_of_before_have_null_where_an_image_has_no_parent(release: Path) -> None:
    def as_before(columns: dict[str, list[Any]]) -> None:
        assert set(columns["parent_image_id"]) == {""}
        columns["parent_image_id"] = [None] * len(columns["parent_image_id"])

    rewrite(release, first_shard(release, "8"), as_before)
    assert problems(release) == []
    rewrite(release, first_shard(release, "8"), set_first("parent_image_id", "s7-r16-c1-000009-0"))
    assert any("parent_image_id is set at a first stage in 1" in line for line in problems(release))


@pytest.mark.parametrize("encoding", ["webp-lossless", "png", "jpeg"])
def test_the_mark_is_found_in_every_encoding(release: Path, encoding: str):
    rewrite(release, first_shard(release), repaint(encoding, 32, synthetic=True))
    assert problems(release) == []


def test_a_column_of_another_type(release: Path):
    path = first_shard(release)
    table = pq.read_table(release / path)
    cast = table.set_column(
        table.schema.get_field_index("seed"), "seed", table["seed"].cast("int32", safe=False)
    )
    pq.write_table(cast.replace_schema_metadata(table.schema.metadata), release / path)
    manifest = read_manifest(release)
    new = tuple(
        replace(s, bytes=(release / path).stat().st_size, sha256=sha256_file(release / path))
        if s.path == path
        else s
        for s in manifest.shards
    )
    replace(manifest, shards=new).write(release)
    assert f"{path}: column seed is int32, not int64" in problems(release)


def test_files_that_do_not_belong(release: Path):
    shutil.copy(release / first_shard(release), release / "32" / "train-other.parquet")
    assert problems(release) == ["32/train-other.parquet: is not in the manifest"]


def test_a_shard_that_the_manifest_forgets(release: Path):
    manifest = read_manifest(release)
    write_readme_and_manifest(release, replace(manifest, shards=manifest.shards[:-1]))
    found = problems(release)
    forgotten = manifest.shards[-1].path
    assert f"{forgotten}: is planned, and not in the manifest" in found
    assert any("configuration 32 has 4 images of class c2, planned are 5" in x for x in found)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        ("body", "README.md: was changed: its SHA-256 is not the manifest's"),
        ("contract", "README.md: its load contract is not the manifest's in license"),
        ("state", "build.json: is missing"),
        ("foreign state", "build.json: is of another release than the manifest"),
    ],
)
def test_what_stands_beside_the_shards(release: Path, harm: str, expected: str):
    if harm in ("body", "contract"):
        readme = release / "README.md"
        text = readme.read_text()
        readme.write_text(
            text + "x" if harm == "body" else text.replace("license: mit", "license: x")
        )
    elif harm == "state":
        (release / "build.json").unlink()
    else:
        state = json.loads((release / "build.json").read_text())
        (release / "build.json").write_text(json.dumps(state | {"seed": 8}))
    assert expected in problems(release)


def test_what_is_no_release(tmp_path: Path):
    result = run(["release", "verify", tmp_path])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "is not a finished release" in result.stderr
    file = tmp_path / "notes.txt"
    file.touch()
    result = run(["release", "verify", file])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "that is a file, not a folder" in result.stderr


def test_a_real_release(tmp_path: Path):
    from PIL import Image

    for name in ("cat", "dog"):
        for i in range(12):
            path = tmp_path / "photos" / "train" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + i, 24), (i, 100, 200)).save(path)
    out = tmp_path / "real"
    real = ["build-dataset", "--real", tmp_path / "photos", "--views", "8", "--out", out]
    assert run(real).returncode == 0
    assert problems(out) == []
    path = first_shard(out, "original")
    rewrite(
        out,
        path,
        set_first(
            "image",
            encode_image(
                decode(pq.read_table(out / path)["image"][0].as_py()["bytes"]),
                "png",
                synthetic=True,
            ),
        ),
    )
    assert any("carries the mark of synthetic media: 1 of 24" in line for line in problems(out))


@pytest.fixture(scope="module")
def picky(class_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose first stage keeps reddish images only."""
    recipe = class_list.parent / "picky-verify.toml"
    rule = 'checkpoint = "8"\naccept = { rule = "tests.stand_in_rule", red = 128, attempts = 3 }\n'
    text = STAND_IN_RECIPE.format(classes=class_list).replace('checkpoint = "8"\n', rule)
    recipe.write_text(text)
    release = tmp_path_factory.mktemp("picky") / "release"
    build = ["build-dataset", "--recipe", recipe, "--per-class", PER_CLASS, "--res", "16"]
    result = run([*build, "--out", release, "--workers", "1"])
    assert result.returncode == 0, result.stderr
    return release


def rejecting(release: Path) -> list[ShardRecord]:
    return [record for record in read_manifest(release).shards if record.rejections_sha256]


def test_files_of_rejected_attempts_are_checked_and_made_again(picky: Path, tmp_path: Path):
    assert problems(picky) == []
    release = Path(shutil.copytree(picky, tmp_path / "release"))
    flipped, deleted = (record.rejections_path for record in rejecting(release)[:2])
    content = bytearray((release / flipped).read_bytes())
    content[-1] ^= 1
    (release / flipped).write_bytes(content)
    (release / deleted).unlink()
    found = problems(release)
    assert len(found) == 2
    assert found[0].startswith(f"{flipped}: has SHA-256")
    assert found[1] == f"{deleted}: is missing"
    trust = ["--trust", "tests.stand_in", "--trust", "tests.stand_in_rule"]
    repaired = run(["release", "repair", release, "--workers", "1", "--json", *trust])
    assert repaired.returncode == 0, repaired.stderr
    harmed = [name.removeprefix("rejections/") for name in (flipped, deleted)]
    assert json.loads(repaired.stdout)["made_again"] == harmed
    assert release_bytes(release) == release_bytes(picky)


def test_rejected_attempts_that_do_not_add_up(picky: Path, tmp_path: Path):
    release = Path(shutil.copytree(picky, tmp_path / "release"))
    record = rejecting(release)[0]
    path = release / record.rejections_path
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    bad = replace(record, rejections_bytes=path.stat().st_size, rejections_sha256=sha256_file(path))
    [problem] = rejection_problems(release, bad)
    assert (
        str(problem) == f"{bad.rejections_path}: its rows that are made are not as many as stated"
    )
    pq.write_table(table.drop_columns(["score"]), path)
    bad = replace(record, rejections_bytes=path.stat().st_size, rejections_sha256=sha256_file(path))
    [problem] = rejection_problems(release, bad)
    assert problem.text == "its columns are not those of rejected attempts"
