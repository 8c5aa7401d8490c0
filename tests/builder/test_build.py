"""Builds with a stand-in generator: what is on disk at the end, however it came about."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image
from torch.utils.data import DataLoader

from release.layout.image_sets import load_images
from release.lease import claimed
from tests.conftest import ROOT, release_bytes, run
from tests.servers.dask_cluster import spawned_by

PER_CLASS = 10


@pytest.fixture(scope="module")
def undisturbed(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release that one worker makes when nothing happens to it."""
    release = tmp_path_factory.mktemp("build") / "release"
    result = run(command(stand_in_recipe, release, workers=1))
    assert result.returncode == 0, result.stderr
    return release


def command(recipe: Path, out: Path, workers: int = 2, per_class: int = PER_CLASS) -> list:
    return [
        *("build-dataset", "--recipe", recipe, "--per-class", per_class),
        *("--out", out, "--workers", workers, "--json"),
    ]


def test_load_dataset_gives_rows_names_and_rgb_images(undisturbed: Path, tmp_path: Path):
    data = load_dataset(str(undisturbed), "32", split="train", cache_dir=str(tmp_path))
    assert len(data) == 3 * PER_CLASS
    assert data.features["label"].names == ["Apple", "Pear", "Plum"]
    assert {image.mode for image in data["image"]} == {"RGB"}
    assert data[0]["image"].size == (32, 32)
    assert sorted(data["index"]) == sorted(list(range(PER_CLASS)) * 3)


@pytest.mark.parametrize("config", ["8", "32"])  # the first stage, whose images have no parent
def test_torchs_loader_makes_batches_of_any_stage(
    undisturbed: Path, tmp_path: Path, config: str
) -> None:
    data = load_dataset(str(undisturbed), config, split="train", cache_dir=str(tmp_path))
    batch = next(iter(DataLoader(data.with_format("torch"), batch_size=7)))
    assert batch["image"].shape == (7, 3, int(config), int(config))
    assert [bool(parent) for parent in batch["parent_image_id"]] == [config == "32"] * 7


def test_a_worker_swaps_models_once_a_stage(stand_in_recipe: Path, tmp_path: Path):
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "fault.json").write_text('{"seconds": 0.05}')  # none: shards wait in line, is all
    built = command(stand_in_recipe, tmp_path / "release", workers=1, per_class=24)
    assert run(built, STAND_IN_FAULTS=str(faults)).returncode == 0
    made = [line.split()[0] for line in (faults / "log").read_text().splitlines()]
    assert [resolution for resolution, _ in groupby(made)] == ["8", "16", "32"]


def test_each_image_names_its_parent(undisturbed: Path):
    parents = pq.read_table(undisturbed / "16")["image_id"].to_pylist()
    children = pq.read_table(undisturbed / "32")
    assert sorted(children["parent_image_id"].to_pylist()) == sorted(parents)
    ids = zip(
        children["image_id"].to_pylist(), children["parent_image_id"].to_pylist(), strict=True
    )
    assert all(child.replace("-r32-", "-r16-") == parent for child, parent in ids)


def test_images_carry_the_mark_of_synthetic_media(undisturbed: Path):
    data = pq.read_table(undisturbed / "32")["image"][0].as_py()["bytes"]
    with Image.open(io.BytesIO(data)) as image:
        assert b"trainedAlgorithmicMedia" in image.info["xmp"]
        assert np.asarray(image).shape == (32, 32, 3)


def test_two_workers_make_the_same_bytes(stand_in_recipe: Path, undisturbed: Path, tmp_path: Path):
    release = tmp_path / "release"
    result = run(command(stand_in_recipe, release, workers=2))
    assert json.loads(result.stdout)["rows"]["32"] == {"train": 3 * PER_CLASS}
    assert release_bytes(release) == release_bytes(undisturbed)


@pytest.mark.parametrize("victim", ["worker", "command"])
def test_killed_and_rerun_the_bytes_are_the_same(
    stand_in_recipe: Path, undisturbed: Path, tmp_path: Path, victim: str
):
    release = tmp_path / "release"
    slow = os.environ | {"PYTHONPATH": str(ROOT), "STAND_IN_SECONDS": "0.1"}
    arguments = [str(part) for part in command(stand_in_recipe, release)]
    arguments[0] = str(Path(sys.executable).parent / arguments[0])
    building = subprocess.Popen(arguments, env=slow, stdout=subprocess.DEVNULL)
    wait_for_shards(release, random.Random(victim).randint(1, 8))
    descendants = psutil.Process(building.pid).children(recursive=True)
    if victim == "worker":
        spawned_by(psutil.Process(building.pid))[-1].send_signal(signal.SIGKILL)
        assert building.wait() == 0
    else:
        building.kill()
        building.wait()
        for process in descendants:
            with suppress(psutil.NoSuchProcess):  # it ended with its parent
                process.kill()
        assert not (release / "manifest.json").exists()
    assert run(command(stand_in_recipe, release)).returncode == 0
    assert release_bytes(release) == release_bytes(undisturbed)


def test_extending_leaves_finished_shards_alone(
    stand_in_recipe: Path, undisturbed: Path, tmp_path: Path
):
    release = tmp_path / "release"
    assert run(command(stand_in_recipe, release, per_class=4)).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in release.rglob("*.parquet")}
    assert run(command(stand_in_recipe, release, per_class=PER_CLASS)).returncode == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    parquet = {k: v for k, v in release_bytes(release).items() if k.endswith(".parquet")}
    assert parquet == {
        k: v for k, v in release_bytes(undisturbed).items() if k.endswith(".parquet")
    }


def test_a_shorter_chain_keeps_the_stages_that_are_there(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    assert run(command(stand_in_recipe, release, per_class=2)).returncode == 0
    shorter = [*command(stand_in_recipe, release, per_class=4), "--res", "8"]
    rows = json.loads(run(shorter).stdout)["rows"]
    assert rows == {r: {"train": 12} for r in ("8", "16", "32")}


def test_an_unfinished_extension_is_not_read(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    assert run(command(stand_in_recipe, release, per_class=4)).returncode == 0
    manifest = (release / "manifest.json").read_bytes()
    assert run(command(stand_in_recipe, release, per_class=8)).returncode == 0
    (release / "manifest.json").write_bytes(manifest)  # as if the extension had not come so far
    assert len(load_images(release, "32", "train")) == 12


def test_two_builds_in_one_folder_do_not_meet(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    with claimed(release):
        result = run(command(stand_in_recipe, release))
    assert result.returncode == 2
    assert "another command is at work" in result.stderr


@pytest.mark.parametrize("harm", ["truncate", "delete marker", "foreign marker"])
def test_a_damaged_shard_is_made_again(
    stand_in_recipe: Path, undisturbed: Path, tmp_path: Path, harm: str
):
    release = tmp_path / "release"
    assert run(command(stand_in_recipe, release)).returncode == 0
    shard = sorted((release / "32").iterdir())[0]
    marker = release / "markers" / "32" / f"{shard.stem}.json"
    if harm == "truncate":
        os.truncate(shard, 100)
    elif harm == "delete marker":
        marker.unlink()
    else:
        content = json.loads(marker.read_text())
        content["shard"]["fingerprint"] = "0" * 64
        marker.write_text(json.dumps(content))
    assert run(command(stand_in_recipe, release)).returncode == 0
    assert release_bytes(release) == release_bytes(undisturbed)


def test_a_finished_release_is_left_at_once(stand_in_recipe: Path, undisturbed: Path):
    code = (
        "import sys; from builder.build_dataset import main\n"
        f"sys.argv = {[str(part) for part in command(stand_in_recipe, undisturbed)]!r}\n"
        "try:\n    main()\n"
        "finally:\n    print([m for m in ('torch', 'datasets', 'distributed') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def parquet_bytes(release: Path) -> dict[str, bytes]:
    return {k: v for k, v in release_bytes(release).items() if k.endswith(".parquet")}


def wait_for_shards(release: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(release.glob("markers/*/*.json"))) < count:
        assert time.monotonic() < deadline, "no shard was made"
        time.sleep(0.02)
