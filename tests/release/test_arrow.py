"""Releases in Arrow IPC: what Parquet promises, and mapped into memory by `load_from_disk`."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import load_dataset, load_from_disk

from builder.accept import StageFacts
from builder.accept.reference_distance import Settings, locate, sha256
from builder.release.verify import verify_release
from release.files.commit import canonical_json, sha256_text
from release.files.storage import release_path
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest
from release.layout.shard_files import is_shard, iterate_shard, read_shard, shard_schema
from release.streaming.encoded import index_images
from tests.conftest import release_bytes
from tests.forked_commands import run

PER_CLASS = 6
IMAGES = 3 * PER_CLASS


def command(recipe: Path, out: Path, *options: str, workers: int = 1) -> list[str | Path]:
    asked = ["--per-class", str(PER_CLASS), "--res", "16", "--workers", str(workers), "--json"]
    return ["build-dataset", "--recipe", recipe, "--out", out, *asked, *options]


@pytest.fixture(scope="module")
def release(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("arrow") / "release"
    result = run(command(stand_in_recipe, out, "--format", "arrow"))
    assert result.returncode == 0, result.stderr
    return out


def problems(release: Path) -> list[str]:
    report = verify_release(release, read_manifest(release), 1, lambda _: None)
    return list(map(str, report.problems))


def test_load_from_disk_maps_each_resolution(release: Path):
    for side in (8, 16):
        both = load_from_disk(str(release / str(side)))
        assert list(both) == ["train"]
        images = load_from_disk(str(release / str(side) / "train"))
        assert len(images) == len(both["train"]) == IMAGES
        assert images.split == "train"
        assert images.features["label"].names == ["Apple", "Pear", "Plum"]
        assert images[0]["image"].size == (side, side)
        assert b"trainedAlgorithmicMedia" in images[0]["image"].info["xmp"]
        mapped = {Path(file["filename"]) for file in images.cache_files}
        assert mapped == {
            release / r.path for r in read_manifest(release).shards if r.config == str(side)
        }


def test_an_accept_rule_knows_its_reference_by_its_files(release: Path):
    settings = Settings(reference=release, config="16", minimum=3)
    place = locate(settings, StageFacts(16, (), Path("16")))
    stated = {f.path: f.sha256 for f in read_manifest(release).shards if f.config == "16"}
    assert stated
    assert sha256(place, settings) == sha256_text(canonical_json(["train", stated]))


def test_load_dataset_reads_it_too(release: Path, tmp_path: Path):
    images = load_dataset(str(release), "16", split="train", cache_dir=str(tmp_path))
    assert sorted(images["image_id"]) == sorted(load_images(release, "16", "train").image_ids)
    assert images[0]["image"].size == (16, 16)


def test_the_images_are_those_of_parquet(release: Path, stand_in_recipe: Path, tmp_path: Path):
    parquet = tmp_path / "release"
    assert run(command(stand_in_recipe, parquet)).returncode == 0
    for config in ("8", "16"):
        one, other = (load_images(r, config, "train") for r in (release, parquet))
        assert (one.sha256, one.image_ids) == (other.sha256, other.image_ids)
    for asked, out, line in (
        ((), release, "holds Arrow IPC files, asked for is Parquet: give --format arrow, or"),
        (
            ("--format", "arrow"),
            parquet,
            "holds Parquet files, asked for is Arrow IPC: give --format p",
        ),
    ):
        before = release_bytes(out)
        result = run(command(stand_in_recipe, out, *asked))
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert line in result.stderr
        assert release_bytes(out) == before


def test_two_workers_a_recipe_and_a_repair_make_the_same_bytes(
    release: Path, stand_in_recipe: Path, tmp_path: Path
):
    recipe = tmp_path / "arrow.toml"
    recipe.write_text(f'format = "arrow"\n{stand_in_recipe.read_text()}')
    other = tmp_path / "release"
    assert run(command(recipe, other, workers=2)).returncode == 0
    assert release_bytes(other) == release_bytes(release)
    shard = other / next(r.path for r in read_manifest(other).shards if r.config == "16")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    (other / "8/dataset_dict.json").write_text("{}")
    (other / "16/train/data-stray.arrow").write_bytes(b"")
    assert {line.split(": ")[0] for line in problems(other)} == {
        str(shard.relative_to(other)),
        "16/train/data-stray.arrow",
        "8/dataset_dict.json",
    }
    (other / "16/train/data-stray.arrow").unlink()
    assert (
        run(["release", "repair", other, "--workers", "1", "--trust", "tests.stand_in"]).returncode
        == 0
    )
    assert release_bytes(other) == release_bytes(release)


def test_it_is_intact_and_what_stands_in_it_follows_from_the_shards(release: Path):
    assert problems(release) == []
    state = json.loads((release / "16/train/state.json").read_text())
    names = [file["filename"] for file in state["_data_files"]]
    assert [f"16/train/{n}" for n in names] == [
        r.path for r in read_manifest(release).shards if r.config == "16"
    ]
    assert all(is_shard(f"16/train/{name}") for name in names)
    assert not is_shard("16/train/state.json")


def test_a_missing_index_is_written_by_a_rerun(release: Path, stand_in_recipe: Path):
    before = release_bytes(release)
    (release / "16/train/state.json").unlink()
    assert run(command(stand_in_recipe, release, "--format", "arrow")).returncode == 0
    assert release_bytes(release) == before


def test_shards_are_read_alike_in_a_folder_and_behind_a_url(release: Path):
    name = read_manifest(release).shards[0].path
    there = release_path("memory://arrow-release") / name
    there.fs.pipe_file(there.path, (release / name).read_bytes())
    whole = read_shard(release / name)
    for path in (release / name, there):
        assert read_shard(path, ["image", "seed"]).equals(whole.select(["image", "seed"]))
        assert shard_schema(path).equals(whole.schema, check_metadata=True)
        batches = list(iterate_shard(path, ["seed"], 3))
        assert max(batch.num_rows for batch in batches) == 3
        assert pa.Table.from_batches(batches).equals(whole.select(["seed"]))


def test_single_images_are_read_by_their_place(release: Path):
    found = index_images(release, "16", "train")
    shards = [r for r in read_manifest(release).shards if r.config == "16"]
    tables = [read_shard(release / r.path, ["image_id", "image"]).to_pylist() for r in shards]
    stored = {row["image_id"]: row["image"]["bytes"] for rows in tables for row in rows}
    contents = found.read(range(len(found)))
    assert dict(zip(found.image_ids, contents, strict=True)) == stored


def test_an_import_is_parquet():
    result = run(["build-dataset", "--real", "fashion-mnist", "--format", "arrow"])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "real images are imported as Parquet" in result.stderr
