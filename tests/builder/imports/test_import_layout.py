"""Which images of a source stand in which file: mixed, bounded, stable as images come and go."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from builder.imports import layout
from builder.imports.jobs import OriginalJob, plan_jobs
from builder.imports.layout import (
    count_files,
    image_id,
    original_of,
    stretches,
    view_parts,
)
from builder.imports.tuning import tuning_rows
from release.classes.class_list import ClassEntry
from release.errors import UserError
from release.real_sources.opening import open_source
from release.real_sources.source import RealSource

FASHION_MNIST_FILES = [
    "32/test-00000000-8a81ab0fcf.parquet",
    "32/train-00000000-734324691f.parquet",
    "original/test-00000000-9c2460f062.parquet",
    "original/train-00000000-308f1732cc.parquet",
]
FASHION_MNIST_TUNING = "49b9e54e28f735fa3024c360a143e4f64a1c87ec50a201c9480848c063bc1ffe"


@dataclass(frozen=True)
class MadeUpSplit:
    """Images of `size` bytes, sorted by class."""

    keys: Sequence[str]
    labels: Sequence[int]
    size: int = 10

    def key(self, i: int) -> str:
        return self.keys[i]

    def version(self, i: int) -> str:  # noqa: ARG002
        return "1"

    def read(self, i: int) -> bytes:
        if self.keys[i].endswith("bad.png"):
            raise UserError("is null")
        return bytes(self.size)


def source(per_class: int, size: int = 10, classes: int = 4, without: str = "") -> RealSource:
    rows = [(f"c{c}/{i}.png", c) for c in range(classes) for i in range(per_class)]
    keys, labels = zip(*[(k, c) for k, c in rows if k != without], strict=True)
    entries = tuple(ClassEntry(c, f"c{c}", f"c{c}", f"c{c}") for c in range(classes))
    return RealSource("made-up", "mit", entries, {"train": MadeUpSplit(keys, labels, size)})


def by_sorting(image_ids: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    """The tuning rows as they were found at first, class by class."""
    hashes = [hashlib.sha256(i.encode()).digest() for i in image_ids]
    chosen = np.zeros(len(labels), dtype=bool)
    for label in set(labels):
        rows = sorted(
            (i for i, other in enumerate(labels) if other == label), key=hashes.__getitem__
        )
        chosen[rows[: len(rows) // 10]] = True
    return chosen


@pytest.mark.parametrize("classes", [1, 7, 300])
def test_tuning_rows_are_the_same_images_as_ever(classes: int):
    random = np.random.default_rng(classes)
    labels = random.integers(classes, size=3000).tolist()
    ids = [f"train-{i:06d}" for i in random.permutation(3000)]
    assert np.array_equal(tuning_rows(ids, labels), by_sorting(ids, labels))


def test_tuning_rows_of_no_images():
    assert tuning_rows([], []).tolist() == []


def test_tuning_rows_of_a_million_images_of_many_classes_take_seconds():
    labels = [i % 20_000 for i in range(200_000)]
    assert tuning_rows([str(i) for i in range(200_000)], labels).sum() == 20_000


def test_fashion_mnist_keeps_its_files_rows_and_tuning(tmp_path: Path):
    """Names as of the first releases: their fingerprints cover keys, labels and their order."""
    fashion = open_source("fashion-mnist")
    assert count_files(fashion, {}) == {}
    files = list(stretches(fashion, {}))
    assert [(s.split, s.place) for s in files[:2]] == [("train", 0), ("train", 5000)]
    assert [s.rows for s in files if s.split == "test"][1] == tuple(range(5000, 10000))
    jobs = plan_jobs("fashion-mnist", fashion, files, tmp_path, [32], "pad")
    names = {job.path for job in jobs}
    assert set(FASHION_MNIST_FILES) <= names
    assert len(names) == 2 * 14
    tuning = np.concatenate([s.tuning for s in files if s.split == "train"])
    assert hashlib.sha256(np.packbits(tuning).tobytes()).hexdigest() == FASHION_MNIST_TUNING


def test_rows_are_mixed_and_not_in_the_order_that_tuning_goes_by():
    made_up = source(500)
    (file,) = stretches(made_up, count_files(made_up, {}))
    labels = [made_up.splits["train"].labels[i] for i in file.rows]
    assert max(len(list(run)) for _, run in groupby(labels)) < 12
    tenth = len(labels) // 10
    assert np.bincount(labels[:tenth], minlength=4).min() > tenth / 8
    assert 5 < sum(file.tuning[:tenth]) < tenth / 3
    assert sorted(file.rows) == list(range(2000))


def test_files_hold_at_most_5000_rows_and_about_a_gigabyte(monkeypatch: pytest.MonkeyPatch):
    small = source(10_000)
    sizes = [len(s.rows) for s in stretches(small, count_files(small, {}))]
    assert sum(sizes) == 40_000
    assert max(sizes) <= 5000
    monkeypatch.setattr(layout, "SHARD_BYTES", 10_000)
    large = source(500, size=100)
    bytes_of = [100 * len(s.rows) for s in stretches(large, count_files(large, {}))]
    assert sum(bytes_of) == 200_000
    assert max(bytes_of) < 1.4 * 10_000


def test_views_of_1024_px_stand_in_files_of_about_a_gigabyte():
    parts = view_parts(5000, 1024)
    assert [start for start, _ in parts[1:]] == [stop for _, stop in parts[:-1]]
    assert (parts[0][0], parts[-1][1]) == (0, 5000)
    assert max(stop - start for start, stop in parts) * 1024 * 1024 * 3 < 1.5e9
    assert view_parts(5000, 256) == [(0, 5000)]


def test_an_image_that_goes_changes_its_own_file_alone():
    before, after = source(3000), source(3000, without="c1/17.png")
    files = count_files(before, {})
    kept = {s.identity for s in stretches(before, files)}
    found = [s.identity for s in stretches(after, count_files(after, files))]
    assert len(found) == len(kept) == 5
    # its file, and that of the image which is now of the tuning tenth, or is no longer
    assert 1 <= len(set(found) - kept) <= 2


def test_a_set_that_has_grown_much_is_cut_anew():
    assert count_files(source(3000), {}) == {"train": 5}
    assert count_files(source(5000), {"train": 5}) == {"train": 5}
    assert count_files(source(9000), {"train": 5}) == {"train": 15}


def test_a_set_of_some_thousands_has_files_for_several_workers():
    assert count_files(source(500), {}) == {"train": 1}
    assert count_files(source(2500), {}) == {"train": 4}
    assert count_files(source(10_000), {}) == {"train": 16}
    assert count_files(source(20_000), {}) == {"train": 18}


@pytest.mark.parametrize("per_class", [1125, 1250, 1300, 2250, 5000, 10_000, 17_900])
def test_a_release_of_before_keeps_its_files(per_class: int):
    """It had one of 5,000 images at most, else one for each 4,500."""
    images = 4 * per_class
    before = {"train": 1 if images <= 5000 else -(-images // 4500)}
    assert count_files(source(per_class), before) == before


def test_ids_are_safe_as_keys_and_file_names():
    keys = [
        "cat/a b.png",
        "cat/a.b.png",
        "cat/a b.jpg",
        "dog/a b.png",
        "cat/ü.png",
        "cat/" + "x" * 300,
    ]
    ids = [image_id("train", key) for key in keys]
    assert len(set(ids)) == len(keys)
    assert all(re.fullmatch(r"train-[A-Za-z0-9_-]{1,60}", name) for name in ids)
    assert ids[0].startswith("train-a_b-")
    assert image_id("train", "000017") == "train-000017"


def test_views_belong_to_their_originals():
    assert original_of("original/train-00000003-0123456789.parquet") == "train-00000003"
    assert original_of("1024/train-00000003p012-0123456789.parquet") == "train-00000003"
    assert original_of("32/top5-00005000-0123456789.parquet") == "top5-00005000"


def test_an_image_without_a_size_is_no_obstacle_to_the_plan():
    split = MadeUpSplit(["c0/bad.png"], [0])
    bad = RealSource("made-up", "mit", (ClassEntry(0, "c0", "c0", "c0"),), {"train": split})
    assert count_files(bad, {}) == {"train": 1}


def test_a_job_is_small_enough_to_send():
    import pickle

    made_up = source(1250)
    files = list(stretches(made_up, {"train": 1}))
    (job,) = plan_jobs("x", made_up, files, Path("r"), [], "pad")
    assert isinstance(job, OriginalJob)
    assert len(pickle.dumps(job)) < 5000 * 6
