"""Importing real images: bytes as they came, views by a recorded rule, a tuning tenth."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from builder.imports.tuning import tuning_rows
from release.errors import UserError
from release.images.views import make_view
from release.layout.image_sets import load_images
from release.layout.manifest import read_manifest
from release.real_sources.opening import open_source
from tests.forked_commands import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes, JPEG and PNG, in the layout SPLIT/CLASS/image."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = root / split / name / f"{i:03d}.{'jpg' if i % 2 else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(256, size=(40 + i, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "photos-real"
    result = run(["build-dataset", "--real", folder, "--views", "8,16", "--out", out])
    assert result.returncode == 0, result.stderr
    return out


def test_original_bytes_are_kept(folder: Path, release: Path):
    rows = pq.read_table(release / "original").to_pylist()
    assert len(rows) == 48
    for row in rows:
        split = row["image_id"].split("-", 1)[0]
        data = (folder / split / row["file_name"]).read_bytes()
        assert row["image"]["bytes"] == data
        assert row["original_sha256"] == hashlib.sha256(data).hexdigest()


def test_a_folder_of_classes_is_imported_with_a_test_split(folder: Path, tmp_path: Path):
    command = ["build-dataset", "--real", folder / "train", "--test-share", "0.2", "--views", "8"]
    command += ["--out", tmp_path / "release"]
    for _ in range(2):
        result = run(command)
        assert result.returncode == 0, result.stderr
    assert "8 of 40 images are its test split" in result.stderr
    manifest = read_manifest(tmp_path / "release")
    assert manifest.per_class("8", "test") == {"cat": 4, "dog": 4}
    assert manifest.origin["source"].endswith("/train?test_share=0.2")
    assert manifest.origin["test_rule"].endswith("copies go together")
    other = run([*command, "--split-seed", "5"])
    assert other.returncode == 2
    assert "holds other images, of " in other.stderr
    assert run(["release", "verify", tmp_path / "release"]).returncode == 0


def test_views_follow_their_rule_and_are_not_marked_synthetic(folder: Path, release: Path):
    row = pq.read_table(release / "16").to_pylist()[0]
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        assert "xmp" not in image.info
        stored = np.asarray(image)
    split = row["image_id"].split("-", 1)[0]
    with Image.open(folder / split / row["file_name"]) as image:
        assert np.array_equal(stored, make_view(image, 16, "center-crop"))
        assert (row["width"], row["height"]) == image.size
    assert row["crop_rule"] == "center-crop-2"
    assert read_manifest(release).kind == "real"


def test_fit_and_tuning_are_the_two_parts_of_train(release: Path):
    parts = {name: load_images(release, "8", name) for name in ("train", "fit", "tuning", "test")}
    ids = {name: set(part.image_ids) for name, part in parts.items()}
    assert ids["fit"] | ids["tuning"] == ids["train"]
    assert not ids["fit"] & ids["tuning"]
    assert np.bincount(parts["tuning"].labels).tolist() == [2, 2]
    assert len(ids["test"]) == 8


def test_load_dataset_reads_it(release: Path, tmp_path: Path):
    data = load_dataset(str(release), "original", cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 40, "test": 8}
    assert data["train"].features["label"].names == ["cat", "dog"]


def test_the_tuning_tenth_is_balanced_and_follows_from_the_ids():
    ids = [f"train-{i:06d}" for i in range(300)]
    labels = [i % 3 for i in range(300)]
    chosen = tuning_rows(ids, labels)
    assert np.bincount(np.array(labels)[chosen]).tolist() == [10, 10, 10]
    order = np.random.default_rng(0).permutation(300)
    shuffled = tuning_rows([ids[i] for i in order], [labels[i] for i in order])
    assert np.array_equal(shuffled, chosen[order])


def test_fashion_mnist_as_debian_ships_it():
    source = open_source("fashion-mnist")
    assert {name: len(split.labels) for name, split in source.splits.items()} == {
        "train": 60000,
        "test": 10000,
    }
    assert np.bincount(source.splits["train"].labels).tolist() == [6000] * 10
    with Image.open(io.BytesIO(source.splits["train"].read(0))) as image:
        assert (image.size, image.mode) == ((28, 28), "L")
        view = make_view(image, 32, "pad")[..., 0]
        assert np.array_equal(view[2:30, 2:30], np.asarray(image))
        assert view[:2].max() == view[30:].max() == 0
    assert source.classes[source.splits["train"].labels[0]].name == "Ankle boot"


@pytest.mark.parametrize("harm", ["no images", "undecodable"])
def test_a_folder_that_cannot_be_imported(tmp_path: Path, harm: str):
    (tmp_path / "photos" / "train" / "cat").mkdir(parents=True)
    if harm == "no images":
        with pytest.raises(UserError, match="no images: name the folder that has them"):
            open_source(str(tmp_path / "photos"))
        return
    (tmp_path / "photos" / "train" / "cat" / "a.png").write_bytes(b"not an image")
    result = run(["build-dataset", "--real", tmp_path / "photos", "--out", tmp_path / "out"])
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert "image cat/a.png of train cannot be decoded" in last
