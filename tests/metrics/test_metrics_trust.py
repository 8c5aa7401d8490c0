"""What a score may be trusted in: caches that notice changes, identities, orders, refusals."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metrics.compare_scores import compare_scores
from metrics.features.extractors import FeatureProtocol, Features
from metrics.features.image_lists import open_image_set
from metrics.features.mergeable import sampling_keys
from metrics.features.release_features import FeatureBlock, iterate_features
from metrics.score_release import _score_one
from metrics.scoring.metric_list import METRICS
from metrics.scoring.reference_files import read_reference_file, read_reference_files
from metrics.scoring.scoring import Scorer
from metrics.states.copies import copy_values, nearest_images
from metrics.states.sample import Sample
from release.errors import UserError
from release.files.commit import canonical_json, sha256_file
from release.files.hash_named import find_checked, write_checked
from release.layout.image_sets import images_sha256, pixels_sha256
from release.layout.manifest import read_manifest
from release.results.result import Result
from tests.sets.small_releases import CLASSES, random_images, write_release

PROTOCOL = FeatureProtocol("stub", "0" * 64, 8, "none", (0.0,) * 3, (1.0,) * 3)


@dataclass
class Stub:
    """Features that follow from 16 pixels of an image, and logits of five classes."""

    seen: int = 0
    batch: int = 16
    classes: tuple[str, ...] | None = None
    protocol: FeatureProtocol = PROTOCOL
    broken: bytes = b""  # pixels of an image whose features are not finite

    def extract(self, images: np.ndarray) -> Features:
        self.seen += len(images)
        pixels = images[:, ::4, ::4].reshape(len(images), -1).astype(np.float32) / 64
        features = pixels[:, :6].copy()
        for i, image in enumerate(images):
            if image.tobytes() == self.broken:
                features[i, 2] = np.nan
        return Features(features, pixels[:, 6:11], np.zeros((len(images), 0), np.float32))

    @property
    def sample(self) -> Features:
        return Stub().extract(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    splits = {"train": [random_images(1, 120)], "test": [random_images(2, 60)]}
    return write_release(tmp_path / "real", splits, kind="real", by_content=True)


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    shards = [random_images(3, 50), random_images(4, 40)]
    return write_release(tmp_path / "generated", {"train": shards}, by_content=True)


def score(release: Path, real: Path, cache: Path, metrics: str = "fd", **fields) -> Result:
    chosen = {name: METRICS[name] for name in metrics.split(",")}
    splits = read_manifest(real).splits()["16"]
    references = [open_image_set(real, "16", split) for split in splits]
    scorer = Scorer(fields.pop("extractor", Stub()), chosen, cache, **fields)
    return scorer.score(open_image_set(release, "16", "train"), references)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


# ------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("kind", ["images", "features", "references"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_harmed_cache_is_made_anew(generated, real, tmp_path, kind, harm):
    cache = tmp_path / "cache"
    before = score(generated, real, cache, "fd,kid,copies")
    for path in (p for p in (cache / kind).rglob("*") if p.is_file()):
        if harm == "flip":
            flip(path, path.stat().st_size // 2)
        else:
            path.write_bytes(path.read_bytes()[: 100 if harm == "cut" else 0])
    again = score(generated, real, cache, "fd,kid,copies")
    assert again.values == before.values
    assert again.reference == before.reference


def test_a_whole_cache_is_not_made_anew(generated, real, tmp_path):
    score(generated, real, tmp_path / "cache")
    stub = Stub()
    score(generated, real, tmp_path / "cache", extractor=stub)
    assert stub.seen == 0


def test_a_cached_list_is_that_of_the_files_content(generated, real, tmp_path):
    """Altered images are refused, and leave nothing behind for the repaired release."""
    clean = score(generated, real, tmp_path / "clean").values
    shard = next(generated.glob("16/*.parquet"))
    intact = shard.read_bytes()
    flip(shard, len(intact) // 2)
    with pytest.raises(UserError, match=f"{shard.name} is not the file that its manifest lists"):
        score(generated, real, tmp_path / "cache")
    shard.write_bytes(intact)
    assert score(generated, real, tmp_path / "cache").values == clean


def test_a_file_that_does_not_fit_its_name_is_not_found(tmp_path):
    path = write_checked(tmp_path, "name", ".npz", b"content")
    assert find_checked(tmp_path, "name", ".npz") == path
    path.write_bytes(b"contenT")
    assert find_checked(tmp_path, "name", ".npz") is None
    assert not path.exists()


def test_broken_images_and_footers_are_named(generated, real, tmp_path):
    """The manifest agrees with the files: they were written so."""

    def rewrite(content: bytes) -> None:
        shard = next(generated.glob("16/*.parquet"))
        shard.write_bytes(content)
        manifest = read_manifest(generated)
        facts = {"bytes": len(content), "sha256": sha256_file(shard)}
        records = (replace(manifest.shards[0], **facts), *manifest.shards[1:])
        replace(manifest, shards=records).write(generated)

    shard = next(generated.glob("16/*.parquet"))
    table = pq.read_table(shard)
    images = table["image"].to_pylist()
    images[7] = {"bytes": images[7]["bytes"][:40], "path": None}
    pq.write_table(table.set_column(0, "image", [images]), shard)
    rewrite(shard.read_bytes())
    name = table["image_id"][7].as_py()
    with pytest.raises(UserError, match=f"{shard.name}, image {name}: cannot be decoded"):
        score(generated, real, tmp_path / "cache")
    rewrite(shard.read_bytes()[:-40] + bytes(40))
    with pytest.raises(UserError, match=f"{shard.name} cannot be read as Parquet"):
        score(generated, real, tmp_path / "cache")


class Killed(BaseException):
    """What ends a process at once: nothing tidies up after it."""


def kill_each_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each file's first writing is not finished; its temporary file stays. Their names."""
    killed: list[str] = []

    @contextmanager
    def replacing(path: Path) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{len(killed)}.tmp"
        yield temporary
        if path.name not in killed:
            killed.append(path.name)
            temporary.write_bytes(temporary.read_bytes()[:-3])
            raise Killed
        temporary.replace(path)

    monkeypatch.setattr("release.files.commit.replacing", replacing)
    return killed


def test_a_scoring_killed_at_any_write_ends_as_an_undisturbed_one(
    generated, real, tmp_path, monkeypatch
):
    """Lists, features, references, picture, result: each run gets one write further."""
    chosen = {name: METRICS[name] for name in ("fd", "copies")}
    references = [open_image_set(real, "16", split) for split in ("train", "test")]
    subject = open_image_set(generated, "16", "train")

    def scoring(place: Path) -> Path:
        order = SimpleNamespace(references={"16": references}, out=place, cache=place / "cache")
        return _score_one(Scorer(Stub(), chosen, order.cache), subject, "stub", order)[0]

    whole = scoring(tmp_path / "whole")
    killed, path = kill_each_once(monkeypatch), None
    while path is None:
        assert not (tmp_path / "killed" / whole.name).exists()
        with suppress(Killed):
            path = scoring(tmp_path / "killed")
    assert len(killed) >= 10
    assert killed[-1] == whole.name
    assert path.read_bytes() == whole.read_bytes()
    pictures = [p.with_name(f"{p.stem}-nearest.png").read_bytes() for p in (path, whole)]
    assert pictures[0] == pictures[1]


# ---------------------------------------------------------------------------- identity


def test_the_same_images_are_the_same_reference(generated, real, tmp_path):
    """In other files, another order, under another name, beside other views and splits."""
    one = score(generated, real, tmp_path / "cache")
    train, test = random_images(1, 120)[::-1], random_images(2, 60)
    splits = {"train": [train[:30], train[30:]], "test": [test[7:], test[:7]]}
    other = write_release(tmp_path / "other", splits, kind="real", by_content=True)
    write_release(other, {"train": [random_images(1, 4, 32)]}, kind="real")  # its manifest, too
    manifest = read_manifest(other)
    write_release(other, splits, kind="real", by_content=True)
    replace(manifest, shards=read_manifest(other).shards + manifest.shards).write(other)
    two = score(generated, other, tmp_path / "cache")
    for key in ("content_sha256", "config", "n"):
        assert one.reference[key] == two.reference[key]
    for split in ("train", "test"):
        values = [result.values[f"fd_{split}"] for result in (one, two)]
        assert values[0]["reference_sha256"] == values[1]["reference_sha256"]
        assert values[0]["value"] == pytest.approx(values[1]["value"], rel=1e-9)


def test_other_pixels_or_classes_are_another_reference():
    images = random_images(1, 3)
    hashes = [pixels_sha256(image) for image in images]
    same = images_sha256(hashes, ["a", "b", "c"])
    assert images_sha256(hashes[::-1], ["c", "b", "a"]) == same
    assert images_sha256(hashes, ["b", "a", "c"]) != same
    images[1, 0, 0, 0] ^= 1
    assert images_sha256([pixels_sha256(image) for image in images], ["a", "b", "c"]) != same
    assert pixels_sha256(images[0][:, :8]) != pixels_sha256(images[0].reshape(8, 32, 3)[:, :16])


def test_classes_are_compared_by_id_before_anything_is_extracted(generated, real, tmp_path):
    """Prompts and names of one's own are no other classes; another order is."""
    manifest = read_manifest(generated)
    own = tuple(replace(c, name=f"my {c.name}", prompt=f"a {c.name}") for c in CLASSES)
    replace(manifest, classes=own).write(generated)
    assert score(generated, real, tmp_path / "cache").values["fd_test"]["n"] == 90
    swapped = (replace(CLASSES[0], wnid="c1"), replace(CLASSES[1], wnid="c0"), *CLASSES[2:])
    replace(manifest, classes=swapped).write(generated)
    stub = Stub()
    with pytest.raises(UserError, match="class 0 is 'c1' in one, 'c0' in the other"):
        score(generated, real, tmp_path / "empty", extractor=stub)
    assert stub.seen == 0


# ---------------------------------------------------------------- order, needs, refusals


def test_inception_scores_do_not_depend_on_the_order_of_files(real, tmp_path):
    """Sorted by brightness in one release, mixed in the other."""
    images = random_images(3, 400)
    dark_first = images[images.mean(axis=(1, 2, 3)).argsort()]
    scores = []
    for name, shards in (("a", [dark_first[:150], dark_first[150:]]), ("b", [images])):
        release = write_release(tmp_path / name, {"train": shards}, by_content=True)
        scores.append(score(release, real, tmp_path / "cache", "is").values)
    for key in scores[0]:
        assert scores[0][key]["value"] == pytest.approx(scores[1][key]["value"], rel=1e-9)
        assert scores[0][key].get("std", 0) == pytest.approx(scores[1][key].get("std", 0), rel=1e-9)


def test_metrics_of_a_set_by_itself_read_no_real_images(generated, real, tmp_path):
    stub = Stub()
    result = score(generated, real, tmp_path / "cache", "is,vendi", extractor=stub)
    assert stub.seen == 90
    assert result.reference == {}


@pytest.mark.parametrize("metric", ["fd", "is", "kid", "cmmd", "vendi", "prdc", "classes"])
def test_features_that_are_not_finite_are_refused_by_name(generated, real, tmp_path, metric):
    image_set = open_image_set(generated, "16", "train")
    stub = Stub(broken=random_images(3, 50)[20].tobytes())
    name = pq.read_table(generated / image_set.shards()[0].path)["image_id"][20].as_py()
    with pytest.raises(UserError, match=f"image {name}: the extractor's features are not finite"):
        score(generated, real, tmp_path / "cache", metric, extractor=stub)
    assert len(list(iterate_features(image_set, Stub(), tmp_path / "cache"))) == 1  # not kept


def test_no_file_holds_a_number_that_is_not_finite(tmp_path):
    values = {"fd_test": {"value": 1.0, "interval": [0.0, float("inf")], "n": 3}}
    result = Result("scores", "shapes", {}, {}, {}, values)
    with pytest.raises(UserError, match=r"values\.fd_test\.interval\[1\] is inf"):
        result.write(tmp_path / "result.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="not finite"):
        canonical_json({"a": float("nan")})


# ------------------------------------------------------------------------------ copies


def block(features: np.ndarray, prefix: str) -> FeatureBlock:
    none = np.zeros((len(features), 0), np.float32)
    keys = sampling_keys([f"{prefix}{i}" for i in range(len(features))])
    return FeatureBlock(keys, np.zeros(len(features), int), features, none, none)


def test_pure_copies_are_all_copies_where_held_out_images_repeat_train():
    """3% of the held-out images are duplicates of train, so the threshold is 0."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(500, 4)).astype(np.float32)
    held_out = np.concatenate([train[:6], rng.normal(size=(194, 4)).astype(np.float32)])
    sets = (train[100:160], held_out, rng.normal(size=(100, 4)).astype(np.float32))
    samples = [
        Sample.of(b.keys, b.features, b.labels)
        for b in (block(f, str(i)) for i, f in enumerate(sets))
    ]
    nearest = [nearest_images(sample, [block(train, "train")]) for sample in samples]
    copies = copy_values(samples[0], nearest[0], nearest[1])["copies"]
    assert (copies["value"], copies["threshold"], copies["expected"]) == (1.0, 0.0, 0.03)
    assert copy_values(samples[2], nearest[2], nearest[1])["copies"]["value"] == 0.0


# --------------------------------------------------------------- statistics of other tools


def test_statistics_called_test_do_not_replace_those_of_the_test_split(generated, real, tmp_path):
    np.savez(tmp_path / "test.npz", mu=np.full(6, 9.0), sigma=np.eye(6))
    files = read_reference_files([tmp_path / "test.npz"])
    own = score(generated, real, tmp_path / "cache").values
    both = score(generated, real, tmp_path / "cache", files=files).values
    assert both["fd_test"] == own["fd_test"]
    assert both["fd_reference_test"]["value"] > 2 * own["fd_test"]["value"]
    assert "statistics" in both["fd_reference_test"]["infinity_refused"]
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "sub/test.npz", mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(UserError, match=r"test\.npz and .*sub/test\.npz.*rename one"):
        read_reference_files([tmp_path / "test.npz", tmp_path / "sub/test.npz"])


def test_statistics_of_other_dimensions_are_refused_before_extraction(generated, real, tmp_path):
    np.savez(tmp_path / "other.npz", mu=np.zeros(7), sigma=np.eye(7))
    stub, files = Stub(), read_reference_files([tmp_path / "other.npz"])
    with pytest.raises(UserError, match="7 dimensions, the extractor's have 6"):
        score(generated, real, tmp_path / "cache", extractor=stub, files=files)
    assert stub.seen == 0


def test_files_that_are_no_npz_are_one_line(tmp_path):
    np.save(tmp_path / "mean.npy", np.zeros(3))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("mu sigma")
    np.savez(tmp_path / "whole.npz", mu=np.zeros(300), sigma=np.eye(300))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    for name in ("mean.npy", "empty.npz", "text.npz", "cut.npz"):
        with pytest.raises(UserError, match=f"{name} is not an npz file"):
            read_reference_file(tmp_path / name)
    np.savez(tmp_path / "n.npz", mu=np.zeros(2), sigma=np.eye(2), n=np.array([1, 2]))
    with pytest.raises(UserError, match="not a number of images"):
        read_reference_file(tmp_path / "n.npz")
    np.savez(tmp_path / "words.npz", mu=np.array(["a"]), sigma=np.eye(1))
    with pytest.raises(UserError, match="no real numbers"):
        read_reference_file(tmp_path / "words.npz")


def test_a_result_can_be_read_by_strict_readers(generated, real, tmp_path):
    result = score(generated, real, tmp_path / "cache", "fd,is,kid,cmmd,prdc,vendi,copies,classes")
    result.write(tmp_path / "result.json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)


# ------------------------------------------------------------------------- comparing


def trained(path: Path, correct: np.ndarray, stated: float | None = None) -> Path:
    """A result of train-classifier with its predictions: label 0 throughout, guessed 0 or 1."""
    share = float(correct.mean()) if stated is None else stated
    top1 = {"value": share, "interval": [share - 0.05, share + 0.05], "n": len(correct)}
    Result("classifier", "shapes", {"train": [{"name": path.stem}]}, {}, {}, {"top1": top1}).write(
        path
    )
    guesses = [[0, 1] if right else [1, 0] for right in correct]
    names = [str(i) for i in range(len(correct))]
    table = pa.table({"image_id": names, "label": [0] * len(names), "top5": guesses})
    pq.write_table(table, path.with_suffix(".parquet"))
    return path


def test_trainings_tested_on_the_same_images_are_compared_in_pairs(tmp_path, capsys):
    """One of them is right about 5 of 300 images more, wrong about none more."""
    right = np.arange(300) < 210
    better = right | (np.arange(300) >= 295)
    paths = [trained(tmp_path / "a.json", right), trained(tmp_path / "b.json", better)]
    compare_scores(*paths, as_json=True)
    row = json.loads(capsys.readouterr().out)["top1"]
    low, high = row["interval"]
    assert row["difference"] == pytest.approx(5 / 300)
    assert 0 < low < row["difference"] < high < 0.04
    assert "paired one by one" in row["interval_covers"]
    assert (row["better"], row["significant"]) == ("higher", True)
    compare_scores(*paths)
    told = capsys.readouterr().out
    assert told.startswith("top1: the second is higher by 0.01667, which is better; statistically ")
    compare_scores(*reversed(paths))
    assert "lower by 0.01667, which is worse; statistically" in capsys.readouterr().out
    renamed = pq.read_table(paths[1].with_suffix(".parquet"))
    ids = pa.array([f"other-{i}" for i in range(len(renamed))])
    pq.write_table(renamed.set_column(0, "image_id", ids), paths[1].with_suffix(".parquet"))
    compare_scores(*paths, as_json=True)  # the same images, imported another way
    assert "too wide" in json.loads(capsys.readouterr().out)["top1"]["interval_covers"]
    paths[1].with_suffix(".parquet").unlink()
    compare_scores(*paths, as_json=True)
    row = json.loads(capsys.readouterr().out)["top1"]
    assert row["interval"][0] < -0.05
    assert "too wide" in row["interval_covers"]
    edited = trained(tmp_path / "c.json", right, stated=0.999)
    with pytest.raises(UserError, match=r"c\.parquet holds other predictions"):
        compare_scores(paths[0], edited)
