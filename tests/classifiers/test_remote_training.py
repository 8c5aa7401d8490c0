"""Training and scoring read from S3: the same results as from a folder, by ranges, in a bound."""

import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from classifiers.recipes.recipe import Augmentation
from classifiers.train_classifier import train_classifier
from metrics.features.extractors import Extractor, FeatureProtocol, Features
from metrics.features.feature_cache import FeatureCache
from metrics.features.image_lists import open_image_set
from metrics.features.release_features import extract_shard
from release.errors import UserError
from release.files.commit import sha256_file
from release.files.storage import ReleasePath, StorageError, release_path
from release.layout.byte_ranges import on_this_machine, read_ranges
from release.layout.image_sets import LabelledImages
from release.layout.manifest import read_manifest
from release.layout.parquet import image_features, table_schema, write_table
from release.results.result import read_result
from release.streaming.encoded import EncodedImages, index_images, join_encoded
from release.streaming.image_cache import BLOCK, ImageCache, image_cache
from tests.servers.faulty_store import BUCKET, FaultyStore
from tests.sets.shapes import CLASSES, RECIPE, make_images, recipe_toml, write_release


def tinted(per_class: int, seed: int) -> LabelledImages:
    """In colour."""
    data = make_images(per_class, seed)
    shares = np.random.default_rng(seed).uniform(0.3, 1, (len(data), 1, 1, 3))
    return replace(data, images=(data.images * shares).astype(np.uint8))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    write_release(folder / "real", {"train": tinted(10, 0), "test": tinted(4, 1)})
    write_release(folder / "made", {"train": tinted(10, 3)}, kind="synthetic")
    return folder


@pytest.fixture(scope="module")
def bucket(releases: Path, store: FaultyStore) -> str:
    """The same releases in S3."""
    place = f"{BUCKET}/remote-training"
    store.files.put(f"{releases}/", f"{place}/", recursive=True)
    return f"s3://{place}"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("release.layout.byte_ranges.WAITS", (0.0, 0.0))


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


def asked_of(store: FaultyStore, part: str) -> list[str]:
    """The ranges asked for of files whose path has `part` in it; "" for a whole file."""
    return [place for method, path, place in store.asked if method == "GET" and part in path]


def kept(cache: ImageCache) -> int:
    files = [path for path in (cache.folder / "images").rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in files)


def contents(data: EncodedImages, rows: Sequence[int]) -> list[bytes]:
    return list(data.read(rows))


def test_results_are_those_of_a_local_copy(
    releases: Path, bucket: str, store: FaultyStore, tmp_path: Path
) -> None:
    """A recipe that crops at random, on a mix; in this process, then by processes of its own."""
    settings = Augmentation(resized_crop=(0.5, 1.0), flip=True)
    recipe = tmp_path / "tiny.toml"
    levels = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    changes = {"epochs": 2, "channels": 3, "augmentation": settings, **levels}
    recipe.write_text(recipe_toml(RECIPE.model_copy(update=changes)))
    found = []
    places: list[tuple[Any, dict[str, Any]]] = [
        (releases, {"loaders": 0}),
        (bucket, {"loaders": 0, "cache_dir": tmp_path / "cache"}),
        (bucket, {"loaders": 2, "cache_dir": tmp_path / "cache"}),
    ]
    for number, (place, options) in enumerate(places):
        store.asked.clear()
        out = tmp_path / f"{number}.json"
        train = [f"{place}/real:16:fit", f"{place}/made"]
        train_classifier(train, f"{place}/real", out, str(recipe), seed=1, **options)
        assert "s3://" not in out.read_text()
        result = read_result(out)
        content = {name: value for name, value in vars(result).items() if name != "environment"}
        content["predictions"] = out.with_suffix(".parquet").read_bytes()
        found.append(content)
        if number == 2:  # all is kept, of whichever process
            assert asked_of(store, "made/16/") == []
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("split", ["train", "fit", "tuning"])
def test_a_batch_is_asked_for_at_once(
    releases: Path,
    bucket: str,
    cache: ImageCache,
    split: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = index_images(releases / "real", "16", split)
    remote = index_images(release_path(f"{bucket}/real"), "16", split, cache=cache)
    assert remote.image_ids == local.image_ids
    assert np.array_equal(remote.labels, local.labels)
    fs = release_path(bucket).fs
    calls: list[int] = []
    original = fs.cat_ranges

    def counted(paths: list[str], *args: Any, **settings: Any) -> Any:
        calls.append(len(paths))
        return original(paths, *args, **settings)

    monkeypatch.setattr(fs, "cat_ranges", counted)
    rows = np.random.default_rng(0).permutation(len(local))[:10].tolist()
    assert contents(remote, [*rows, rows[0]]) == contents(local, [*rows, rows[0]])
    assert calls == [10]
    assert contents(remote, rows[::-1]) == contents(local, rows[::-1])
    assert calls == [10]  # from the cache


def test_local_and_remote_files_in_one_batch(
    releases: Path, bucket: str, cache: ImageCache
) -> None:
    local = index_images(releases / "real", "16", "train")
    made = index_images(releases / "made", "16", "train")
    remote = index_images(release_path(f"{bucket}/made"), "16", "train", cache=cache)
    rows = np.random.default_rng(0).permutation(len(local) + len(made)).tolist()
    mixed, whole = join_encoded([local, remote]), join_encoded([local, made])
    assert contents(mixed, rows) == contents(whole, rows)
    image = np.asarray(mixed.image(len(local) + 3))
    assert np.array_equal(image, np.asarray(made.image(3)))


def test_files_are_indexed_once(
    bucket: str, cache: ImageCache, store: FaultyStore, releases: Path
) -> None:
    release = release_path(f"{bucket}/made")
    index_images(release, "16", "train", cache=cache)
    store.asked.clear()
    index_images(release, "16", "train", cache=cache)
    assert asked_of(store, "made/16/") == []
    sha256 = read_manifest(releases / "made").shards[0].sha256
    (cache.folder / "index" / f"{sha256}.parquet").write_bytes(b"cut")
    assert len(index_images(release, "16", "train", cache=cache)) == 60


def arrow_release(folder: Path) -> Path:
    """As Arrow, with a manifest that lists it."""
    data = tinted(3, 5)
    write_release(folder, {"train": data}, kind="synthetic")
    manifest = read_manifest(folder)
    path = folder / "16/train/data-00000000.arrow"
    path.parent.mkdir(parents=True)
    images = [_png(image) for image in data.images]
    columns = {"image": images, "label": data.labels.tolist(), "image_id": list(data.image_ids)}
    schema = table_schema(image_features(CLASSES, {"image_id": "string"}), CLASSES)
    with path.open("wb") as file:
        write_table(pa.PythonFile(file), schema, columns, "arrow")
    (record,) = manifest.shards
    (folder / record.path).unlink()
    new = replace(
        record,
        path="16/train/data-00000000.arrow",
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
    )
    replace(manifest, shards=(new,)).write(folder)
    return folder


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "png")
    return sink.getvalue()


def test_arrow_files(store: FaultyStore, tmp_path: Path, cache: ImageCache) -> None:
    local = arrow_release(tmp_path / "mapped")
    store.files.put(f"{local}/", f"{BUCKET}/remote-mapped/", recursive=True)
    remote = index_images(release_path(f"s3://{BUCKET}/remote-mapped"), "16", "train", cache=cache)
    rows = list(range(len(remote)))
    assert contents(remote, rows) == contents(index_images(local, "16", "train"), rows)


# The cache


@pytest.mark.parametrize("blocks", [0, 1, 7])
def test_the_cache_keeps_within_its_bound(
    releases: Path, bucket: str, cache: ImageCache, blocks: int
) -> None:
    small = replace(cache, limit=blocks * BLOCK)
    local = index_images(releases / "made", "16", "train")
    remote = index_images(release_path(f"{bucket}/made"), "16", "train", cache=small)
    rows = list(range(20))
    for _ in range(2):
        assert contents(remote, rows) == contents(local, rows)
    assert kept(small) == blocks * BLOCK


def test_what_is_damaged_is_fetched_again(releases: Path, bucket: str, cache: ImageCache) -> None:
    local = index_images(releases / "made", "16", "train")
    remote = index_images(release_path(f"{bucket}/made"), "16", "train", cache=cache)
    contents(remote, [0, 1, 2])
    for number, path in enumerate(sorted((cache.folder / "images").rglob("*"))[-3:]):
        content = bytearray(path.read_bytes())
        content[10] ^= 1
        path.write_bytes(content if number else content[:5])
    assert contents(remote, [0, 1, 2]) == contents(local, [0, 1, 2])


def test_many_at_once_take_no_more_than_the_bound(cache: ImageCache) -> None:
    small = replace(cache, limit=30 * BLOCK)

    def work(number: int) -> None:
        for i in range(20):
            small.put([("a" * 64, number * 1000 + i, bytes([number]) * 1000)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(small) == 30 * BLOCK
    assert not list(small.folder.rglob("*.tmp"))


def test_room_taken_before_the_first_image_is_written_stays_taken(cache: ImageCache) -> None:
    small = replace(cache, limit=3 * BLOCK)
    assert small._take_room([BLOCK, BLOCK]) == 2  # by another process, which writes them later
    small.put([("a" * 64, i, b"x" * 100) for i in range(3)])
    assert kept(small) == BLOCK


def test_what_others_left_makes_room(cache: ImageCache) -> None:
    small = replace(cache, limit=10 * BLOCK)
    for number, name in enumerate("abc"):
        small.put([(name, i, b"x" * 100) for i in range(3)])
        stamp = time.time() - 100 + number
        os.utime(small.folder / "images" / name, (stamp, stamp))
    small.make_room({"c"}, 4 * BLOCK)  # 9 of 10 are taken, and 3 of the 4 are there
    assert kept(small) == 9 * BLOCK
    small.make_room({"c"}, 5 * BLOCK)  # 2 are missing: the oldest goes
    assert sorted(p.name for p in (small.folder / "images").iterdir()) == ["b", "c"]
    os.utime(small.folder / "images/c", (stamp, stamp))  # clocks are coarse
    small.make_room({"b"}, 3 * BLOCK)  # all of it is there, and used last now
    assert kept(small) == 6 * BLOCK
    small.make_room({"d"}, 5 * BLOCK)
    assert [p.name for p in (small.folder / "images").iterdir()] == ["b"]
    small.put([("c", i, b"x" * 100) for i in range(3)])
    replace(small, limit=2 * BLOCK).make_room({"c"}, BLOCK)  # its own, where the bound is lower
    assert kept(small) == 0
    small.put([("c", 0, b"x")])
    (small.folder / "bytes").unlink()  # what is there is counted
    small.put([("c", i, b"x") for i in range(1, 20)])
    assert kept(small) == 10 * BLOCK


def test_options_of_the_cache(tmp_path: Path) -> None:
    assert image_cache(tmp_path / "new", 1.5).limit == 1_500_000_000
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--cache-dir .*file is no folder"):
        image_cache(tmp_path / "file", 1)
    with pytest.raises(UserError, match="--cache-gb -1: give 0"):
        image_cache(None, -1)


# A store in trouble


def faults(monkeypatch: pytest.MonkeyPatch, release: ReleasePath, answer: Callable) -> list[int]:
    """Have the file system give answer(number of the call, contents) for each cat_ranges."""
    assert not isinstance(release, Path)
    original, calls = release.fs.cat_ranges, []

    def cat(paths: list[str], *args: Any, **settings: Any) -> list[Any]:
        calls.append(len(paths))
        return answer(len(calls), original(paths, *args, **settings))

    monkeypatch.setattr(release.fs, "cat_ranges", cat)
    return calls


def test_a_failure_in_passing_is_asked_for_again(
    releases: Path, bucket: str, cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_path(f"{bucket}/made")
    local = index_images(releases / "made", "16", "train")
    remote = index_images(release, "16", "train", cache=cache)

    def fail_first(call: int, found: list[Any]) -> list[Any]:
        if call == 1:
            return [ConnectionResetError("reset"), found[1][:-1], *found[2:]]
        return found

    calls = faults(monkeypatch, release, fail_first)
    assert contents(remote, [0, 1, 2, 3]) == contents(local, [0, 1, 2, 3])
    assert calls == [4, 2]  # of those alone that failed


def test_a_lasting_failure_is_one_line(
    bucket: str, cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_path(f"{bucket}/made")
    remote = index_images(release, "16", "train", cache=cache)
    calls = faults(monkeypatch, release, lambda _, f: [OSError("gone\nfor good")] * len(f))
    with pytest.raises(StorageError) as found:
        contents(remote, [0, 1])
    assert str(found.value) == (
        f"{bucket}/made: the store failed (gone for good); what is finished is kept: rerun to go on"
    )
    assert len(calls) == 3
    monkeypatch.setattr(release.fs, "cat_ranges", _raise_at_once)
    with pytest.raises(StorageError, match="no route"):
        contents(remote, [0, 1])


def _raise_at_once(*_: Any, **__: Any) -> list[Any]:
    raise RuntimeError("no route")


def test_a_batch_that_cannot_be_read_ends_training_in_one_line(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "tiny.toml"
    crop = Augmentation(resized_crop=(0.5, 1.0))
    recipe.write_text(recipe_toml(RECIPE.model_copy(update={"epochs": 1, "augmentation": crop})))
    release = release_path(f"{bucket}/made")
    faults(monkeypatch, release, lambda call, f: [OSError("off")] * len(f) if call > 1 else f)
    with pytest.raises(UserError, match=r"remote-training/made: the store failed \(off\)"):
        train_classifier(
            [f"{bucket}/made"], f"{bucket}/real", tmp_path / "x.json", str(recipe),
            loaders=0, cache_dir=tmp_path / "cache",
        )  # fmt: skip
    assert not (tmp_path / "x.json").exists()


def test_answers_of_503_are_waited_for(bucket: str, store: FaultyStore) -> None:
    release = release_path(f"{bucket}/made")
    store.fail(after=0, times=2, method="GET")
    (content,) = read_ranges(release, [("manifest.json", 0, 1)])
    assert (content, store.failures) == (b"{", 2)


def test_a_file_that_is_gone_or_another_is_one_line(
    releases: Path, store: FaultyStore, cache: ImageCache
) -> None:
    place = f"{BUCKET}/remote-changed"
    store.files.put(f"{releases / 'made'}/", f"{place}/", recursive=True)
    release = release_path(f"s3://{place}")
    shard = read_manifest(release).shards[0].path
    content = bytearray(store.files.cat(f"{place}/{shard}"))
    content[700] ^= 1
    store.files.pipe(f"{place}/{shard}", bytes(content))
    with pytest.raises(UserError, match=r"is not the file that its manifest lists"):
        index_images(release, "16", "train", cache=cache)
    content[700] ^= 1
    store.files.pipe(f"{place}/{shard}", bytes(content))
    data = index_images(release, "16", "train", cache=cache)
    store.files.pipe(f"{place}/{shard}", bytes(content[:-1]))
    with pytest.raises(UserError, match=r"is not the file that its manifest lists"):
        index_images(release, "16", "train", cache=cache)
    store.files.rm(f"{place}/{shard}")
    with pytest.raises(UserError, match=r"is not there, though its manifest lists it"):
        index_images(release, "16", "train", cache=cache)
    with pytest.raises(UserError, match=r"a file that its manifest lists is not there"):
        contents(data, [0])


def test_a_copy_comes_in_pieces_and_goes(
    bucket: str, releases: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("release.layout.byte_ranges.PIECE", 1000)
    monkeypatch.setattr("release.layout.byte_ranges.PIECES", 3)
    release = release_path(f"{bucket}/made")
    record = read_manifest(release).shards[0]
    with on_this_machine(release, record.path, record.sha256, tmp_path) as copy:
        assert copy.read_bytes() == (releases / "made" / record.path).read_bytes()
    assert list(tmp_path.iterdir()) == []
    with on_this_machine(releases / "made", record.path, record.sha256) as itself:
        assert itself == releases / "made" / record.path


# Scoring


class Means:
    """A network's stand-in: the mean colours."""

    classes = None

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


def colours(images: np.ndarray) -> Features:
    means = images.mean(axis=(1, 2)).astype(np.float32)
    none = np.zeros((len(images), 0), np.float32)
    return Features(means, none, none)


def test_scoring_reads_each_file_once(
    bucket: str, store: FaultyStore, tmp_path: Path, releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = FeatureProtocol("colours", "0" * 64, 16, "none", (0, 0, 0), (1, 1, 1))
    extractor = Extractor(protocol, Means(), torch.device("cpu"), 16)  # type: ignore[arg-type]
    monkeypatch.setattr(Extractor, "extract", lambda _, images: colours(images))
    found = []
    for name, place in {"local": releases / "made", "s3": release_path(f"{bucket}/made")}.items():
        image_set = open_image_set(place, "16", "train")
        (shard,) = image_set.shards()
        store.asked.clear()
        cache = FeatureCache(tmp_path / name, protocol)
        assert extract_shard(image_set, shard, extractor, cache) == 60
        if name == "s3":
            assert asked_of(store, shard.path) == [f"bytes=0-{shard.bytes - 1}"]
            store.asked.clear()
        assert (
            extract_shard(image_set, shard, extractor, FeatureCache(tmp_path / name, protocol)) == 0
        )
        assert asked_of(store, "") == []
        files = sorted((tmp_path / name / "features").rglob("*.parquet"))
        found.append([path.name for path in files])  # by the hash of their content
    assert found[0] == found[1]
