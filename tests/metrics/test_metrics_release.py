"""From Parquet to result files, with the offline extractor."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pytorch_fid.fid_score import compute_statistics_of_path
from scipy import linalg
from sklearn.datasets import load_sample_images

from metrics.compare_scores import compare_scores
from metrics.features import networks
from metrics.features.extraction import plan_extraction
from metrics.features.extractors import load_extractor
from metrics.features.feature_cache import FeatureCache
from metrics.features.image_lists import open_image_set, read_image_list
from metrics.features.mergeable import sampling_keys
from metrics.features.release_features import extract_shard, iterate_features
from metrics.score_release import open_references, print_table, score_release
from metrics.scoring.comparability import require_comparable
from metrics.scoring.reference_files import read_reference_file
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import Result, read_result
from tests.forked_commands import run
from tests.sets.small_releases import CLASSES, random_images, write_release

BATCH = 16


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("efficientnet-lite0-64", device="cpu", batch=BATCH)


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    real = {"train": [random_images(1, 40), random_images(2, 40)], "test": [random_images(3, 40)]}
    write_release(folder / "shapes-real", real, kind="real")
    write_release(folder / "shapes-16", {"train": [random_images(4, 40), random_images(5, 30)]})
    return folder


@pytest.fixture(scope="module")
def scored(releases, tmp_path_factory) -> dict[str, Result]:
    out = tmp_path_factory.mktemp("scored")
    names = [f"{releases}/shapes-16:16", f"{releases}/shapes-real:16:test"]
    score_release(
        names,
        real=f"{releases}/shapes-real",
        out=out,
        cache=out / "cache",
        device="cpu",
        workers=1,
        batch=BATCH,
    )
    return {path.stem: read_result(path) for path in out.glob("*.json")}


def photo(index: int) -> np.ndarray:
    """uint8[1,S,S,3]: the centre of one of scikit-learn's photographs."""
    image = load_sample_images().images[index]
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[None, top : top + side, left : left + side]


def test_the_network_recognises_photographs():
    extractor = load_extractor("efficientnet-lite0-224", device="cpu", batch=1)
    labels = [extractor.extract(photo(i)).logits[0].argmax() for i in (0, 1)]
    assert labels[0] in (442, 663, 698)  # bell cote, monastery, palace
    assert labels[1] == 985  # daisy


def test_features_do_not_depend_on_the_batch(extractor):
    images = random_images(0, 40)
    together = extractor.extract(images)
    assert together.features.shape == (40, 1280)
    assert together.logits.shape == (40, 1000)
    alone = extractor.extract(images[17:18])
    assert (alone.features == together.features[17:18]).all()
    assert (alone.logits == together.logits[17:18]).all()


def test_weights_that_were_changed_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="starts with 5793"):
        networks.require_hash(path, networks.EFFICIENTNET_SHA256)


@pytest.mark.parametrize("name", ["efficientnet-lite0-50", "efficientnet-lite0-", "vgg"])
def test_unknown_extractors(name):
    with pytest.raises(UserError, match="efficientnet-lite0-64"):
        load_extractor(name)


# -------------------------------------------------------------------------- feature pass


@pytest.mark.parametrize(
    ("least", "lengths"),
    [(14, [16, 14, 16]), (17, [30, 16]), (40, [46])],
)
def test_blocks_hold_every_image_in_plan_order(extractor, tmp_path, monkeypatch, least, lengths):
    monkeypatch.setattr("metrics.features.release_features.BLOCK_IMAGES", least)
    shards = [random_images(seed, n) for seed, n in ((1, 16), (2, 14), (3, 16))]
    release = write_release(tmp_path / "release", {"train": shards})
    image_set = open_image_set(release, "16", "train")
    blocks = list(iterate_features(image_set, extractor, tmp_path / "cache"))
    assert [len(block) for block in blocks] == lengths
    ids = [f"train-{shard}-{i}" for shard, images in enumerate(shards) for i in range(len(images))]
    labels = [i % len(CLASSES) for images in shards for i in range(len(images))]
    direct = [extractor.extract(images) for images in shards]
    for name, expected in {
        "keys": sampling_keys(ids),
        "labels": labels,
        "features": np.concatenate([found.features for found in direct]),
        "logits": np.concatenate([found.logits for found in direct]),
    }.items():
        assert np.array_equal(np.concatenate([getattr(b, name) for b in blocks]), expected), name


def test_a_shard_without_images_is_an_empty_list(tmp_path):
    release = write_release(tmp_path / "release", {"train": [random_images(1, 4)]})
    image_set = open_image_set(release, "16", "train")
    (shard,) = image_set.shards()
    table = pq.read_table(release / shard.path)
    pq.write_table(table.slice(0, 0), release / shard.path)  # as if all had been rejected
    shard = replace(shard, sha256=sha256_file(release / shard.path))
    assert len(read_image_list(image_set, shard, tmp_path / "cache")) == 0


@pytest.mark.parametrize(("split", "n"), [("fit", 72), ("tuning", 8)])
def test_pseudo_splits(releases, extractor, tmp_path, split, n):
    image_set = open_image_set(releases / "shapes-real", "16", split)
    blocks = list(iterate_features(image_set, extractor, tmp_path))
    assert sum(map(len, blocks)) == image_set.count(tmp_path) == n
    rows = [i for i in range(40) if (i % 10 == 0) == (split == "tuning")]
    direct = extractor.extract(random_images(1, 40)[rows])
    assert (blocks[0].features[: len(rows)] == direct.features).all()


def test_threads_take_batches_of_their_own_and_change_no_bit(releases, extractor, tmp_path):
    image_set = open_image_set(releases / "shapes-real", "16", "train")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            blocks = iterate_features(image_set, extractor, tmp_path / str(threads))
            found.append(np.concatenate([block.features for block in blocks]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (found[0] == found[1]).all()


class Counting:
    """An extractor that counts the images it is asked for."""

    def __init__(self, extractor):
        self.extractor, self.seen = extractor, 0
        self.protocol, self.batch = extractor.protocol, extractor.batch

    def extract(self, images: np.ndarray):
        self.seen += len(images)
        return self.extractor.extract(images)


def test_only_new_images_are_extracted(extractor, tmp_path):
    first, second = random_images(4, 40), random_images(5, 30)
    counting, done = Counting(extractor), []

    def pass_over(name: str, shards: list[np.ndarray]) -> np.ndarray:
        release = write_release(tmp_path / name, {"train": shards})
        image_set = open_image_set(release, "16", "train")
        found = iterate_features(image_set, counting, tmp_path / "cache", done.append)
        return np.concatenate([shard.features for shard in found])

    before = pass_over("a", [first])
    assert counting.seen == 40
    assert (pass_over("a", [first]) == before).all()
    assert counting.seen == 40
    after = pass_over("a", [first, second])
    assert counting.seen == 70
    assert (after[:40] == before).all()
    reordered = pass_over("b", [np.concatenate([second[::-1], random_images(6, 3), first[5:]])])
    assert counting.seen == 73
    assert (reordered[:30] == after[40:][::-1]).all()
    assert (reordered[33:] == before[5:]).all()
    assert sum(done) == 40 + 40 + 70 + 68


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path):
    release = write_release(tmp_path / "changed", {"train": [random_images(4, 5)]})
    with next(release.glob("16/*.parquet")).open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="not the file that the manifest"):
        open_image_set(release, "16", "train")


# -------------------------------------------------------------------------------- scores


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    a = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    difference = x.mean(axis=0) - y.mean(axis=0)
    return float(difference @ difference + (a**2).sum() + (b**2).sum()) - 2 * float(
        linalg.svdvals(a @ b.T).sum()
    )


def test_distances_against_train_and_test(scored, extractor):
    values = scored["shapes-16-16-train-efficientnet-lite0-64"].values
    ours = extractor.extract(np.concatenate([random_images(4, 40), random_images(5, 30)]))
    train = extractor.extract(np.concatenate([random_images(1, 40), random_images(2, 40)]))
    test = extractor.extract(random_images(3, 40))
    for split, reference in (("train", train), ("test", test)):
        value = values[f"fd_{split}"]
        assert value["value"] == pytest.approx(frechet(ours.features, reference.features), rel=1e-6)
        assert (value["n"], value["reference_n"]) == (70, len(reference))
        low, high = value["interval"]
        assert low < value["value"] < high


def test_a_split_is_not_measured_against_itself(scored):
    values = scored["shapes-real-16-test-efficientnet-lite0-64"].values
    assert "fd_train" in values
    assert "fd_test" not in values


def test_the_result_says_what_it_is(scored):
    result = scored["shapes-16-16-train-efficientnet-lite0-64"]
    assert result.dataset == "shapes"
    assert result.subject["images"] == 70
    assert result.subject["kind"] == "synthetic"
    assert result.reference["n"] == {"train": 80, "test": 40}
    features = result.protocol["features"]
    assert features["weights_sha256"] == networks.EFFICIENTNET_SHA256
    assert (features["input_size"], features["resize"]) == (64, "clean")
    assert 1 < result.values["inception_score"]["value"] < 1000


def test_scoring_again_gives_the_same_result(releases, scored, tmp_path, capsys):
    """Another cache, another batch of files beside it: not one bit changes."""
    score_release(
        [f"{releases}/shapes-16:16"],
        real=f"{releases}/shapes-real",
        out=tmp_path,
        cache=tmp_path / "cache",
        device="cpu",
        workers=1,
        batch=BATCH,
        as_json=True,
    )
    printed = json.loads(capsys.readouterr().out)
    again = read_result(next(tmp_path.glob("*.json")))
    assert again.values == scored["shapes-16-16-train-efficientnet-lite0-64"].values
    assert next(iter(printed.values()))["values"] == again.values


@pytest.mark.usefixtures("_worker_forks")
def test_the_bits_are_the_same_at_any_number_of_workers(releases, scored, tmp_path):
    """Five shards on two and on four processes, each with an empty cache."""
    for workers in (2, 4):
        score_release(
            [f"{releases}/shapes-16:16"],
            real=f"{releases}/shapes-real",
            out=tmp_path / str(workers),
            cache=tmp_path / str(workers),
            device="cpu",
            workers=workers,
            batch=BATCH,
            as_json=True,
        )
        again = read_result(next((tmp_path / str(workers)).glob("*.json")))
        assert again.values == scored["shapes-16-16-train-efficientnet-lite0-64"].values


def test_two_releases_of_one_name_are_refused(releases, tmp_path):
    """Both would write one result file."""
    copy = shutil.copytree(releases / "shapes-16", tmp_path / "again/shapes-16")
    with pytest.raises(UserError, match=r"again/shapes-16:16 are called shapes-16:16:train, so"):
        score_release(
            [f"{releases}/shapes-16:16", f"{copy}:16"],
            real=f"{releases}/shapes-real",
            out=tmp_path / "scores",
        )
    assert not (tmp_path / "scores").exists()


def test_only_shards_with_new_images_are_planned(releases, tmp_path):
    """A shard is planned as long as one of its images has no features."""
    name = "efficientnet-lite0-64"
    extractor = load_extractor(name, device="cpu", batch=BATCH)
    image_set = open_image_set(releases / "shapes-real", "16", "train")

    def planned() -> list[str]:
        tasks = plan_extraction([image_set], extractor.protocol, name, "cpu", BATCH, tmp_path)
        return [task.image_set.manifest.shards[0].path for task in tasks]

    assert planned() == ["16/train-00000.parquet", "16/train-00001.parquet"]
    first, _ = image_set.shards()
    cache = FeatureCache(tmp_path, extractor.protocol)
    assert extract_shard(image_set, first, extractor, cache) == 40
    assert extract_shard(image_set, first, extractor, cache) == 0
    assert planned() == ["16/train-00001.parquet"]


def test_every_metric_of_one_command(releases, tmp_path, capsys):
    score_release(
        [f"{releases}/shapes-16:16"],
        real=f"{releases}/shapes-real",
        out=tmp_path,
        cache=tmp_path / "cache",
        metrics="all",
        device="cpu",
        workers=1,
        batch=BATCH,
        as_json=True,
    )
    (result,) = json.loads(capsys.readouterr().out).values()
    measured = ["fd", "kid", "class_kid", "cmmd", "c2st"]
    measured += ["precision", "recall", "density", "coverage"]
    against = {f"{name}_{split}" for name in measured for split in ("train", "test")}
    against |= {"fdr_test"}  # no class_fdr of so few images
    against |= {"nearest_train", "copies_train"}  # agreement: the extractor knows other classes
    own = {"inception_score", "inception_score_splits", "inception_score_adm", "vendi"}
    assert set(result["values"]) == against | own
    for key, value in result["values"].items():
        assert np.isfinite(value["value"]), key
        assert value["settings"]
        if value.get("interval"):
            low, high = value["interval"]
            assert low <= value["value"] <= high, key
    assert result["values"]["cmmd_train"]["interval"]
    assert result["values"]["precision_test"]["reference_n"] == 40
    assert len(list((tmp_path / "cache/references").glob("*.npz"))) == 2 * 4 + 1
    for row in result["values"]["class_kid_test"]["per_class"]:
        assert row["wnid"].startswith("c")
        assert row["fd_refused"].endswith("1280 dimensions need 6400 on both sides")
    pairs = result["values"]["nearest_train"]["pairs"]
    assert {pair["nearest"].split("-")[0] for pair in pairs} == {"train"}
    easiest = result["values"]["c2st_test"]["easiest"]
    assert [entry["image"].split("-")[0] for entry in easiest] == ["train"] * 16
    odds = [entry["log_odds"] for entry in easiest]
    assert odds == sorted(odds, reverse=True)
    names = {path.name.split("64-")[1] for path in tmp_path.glob("*.png")}
    assert names == {"nearest.png", "c2st_train.png", "c2st_test.png"}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500


def test_statistics_of_another_tool(releases, tmp_path, capsys):
    """Exported, the train split's statistics give the same distance; other features' do not."""
    options = {"real": f"{releases}/shapes-real", "out": tmp_path, "cache": tmp_path / "cache"}
    options |= {"device": "cpu", "workers": 1, "batch": BATCH, "as_json": True, "metrics": "fd"}
    subject = [f"{releases}/shapes-16:16"]
    score_release(subject, **options, export_reference=tmp_path / "statistics")
    (exported,) = (tmp_path / "statistics").glob("shapes-real-16-train-*.npz")
    pytorch_fid_mean, _ = compute_statistics_of_path(str(exported), None, 1, 1, "cpu")
    assert pytorch_fid_mean.shape == (1280,)
    capsys.readouterr()
    score_release(subject, **options, reference=[exported])
    (result,) = json.loads(capsys.readouterr().out).values()
    values, key = result["values"], f"fd_reference_{re.sub('[^a-z0-9]', '_', exported.stem)}"
    assert values[key]["value"] == pytest.approx(values["fd_train"]["value"], rel=1e-9)
    assert values[key]["reference_n"] == 80
    assert values[key]["reference_sha256"] == sha256_file(exported)
    with np.load(exported) as stored:
        other = {name: stored[name] for name in stored.files} | {"protocol_sha256": "0" * 64}
    np.savez(tmp_path / "other.npz", **other)
    with pytest.raises(UserError, match="other holds features of protocol 000000000000"):
        score_release(subject, **options, reference=[tmp_path / "other.npz"])


def test_broken_statistics_are_refused(tmp_path):
    def refuse(match: str, **arrays) -> None:
        np.savez(tmp_path / "file.npz", **arrays)
        with pytest.raises(UserError, match=match):
            read_reference_file(tmp_path / "file.npz")

    refuse("no mu and sigma", arr_0=np.zeros((2, 4, 4, 3)))
    refuse("mean of shape", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    refuse("not finite", mu=np.full(2, np.nan), sigma=np.eye(2))
    refuse("not an npz file of numbers", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    with pytest.raises(UserError, match="no such file"):
        read_reference_file(tmp_path / "none.npz")


def test_what_is_not_given_is_named(scored, capsys):
    result = next(iter(scored.values()))
    values = {"sfid_train": result.values["fd_train"]}
    print_table([(Path("few.json"), replace(result, values=values))])
    assert "sfid_infinity_train is not given: 70 images" in capsys.readouterr().out


def test_the_table_names_the_extractor(scored, capsys):
    print_table([(Path(f"{name}.json"), result) for name, result in scored.items()])
    table = capsys.readouterr().out
    rows = re.findall(r".*│ +(?:fd_|inception_score).*", table)
    assert len(rows) == 3 + 2 + 3 + 1
    for row in rows:
        assert "efficientnet-lite0-64" in row
    assert "FID" not in table
    refused = (
        "fd_infinity_train is not given: 70 images against 80, but 1,280 dimensions need 6,400"
    )
    assert refused in table
    assert re.search(r"metric\W+n\W+reference n\W+value\W+95% interval", table)


def test_bad_input(releases, tmp_path):
    real, other = f"{releases}/shapes-real", tmp_path / "other"
    write_release(other, {"train": [random_images(1, 8)]}, kind="real", dataset="others")

    def refuse(match: str, release: str = f"{releases}/shapes-16:16", **options) -> None:
        settings = {
            "real": real,
            "out": tmp_path,
            "cache": tmp_path,
            "device": "cpu",
            "workers": 1,
        } | options
        with pytest.raises(UserError, match=match):
            score_release([release], **settings)

    refuse("give RELEASE:CONFIG", release=str(real))
    refuse("not a finished release", release=f"{tmp_path}/none:16")
    refuse("unknown configuration .*known: 16", release=f"{real}:32")
    refuse("unknown split .*known: test, train", release=f"{real}:16:validation")
    refuse("unknown metric 'fid'; known: agreement, all, c2st, class_fdr, classes, ", metrics="fid")
    refuse("unknown metric ''", metrics="")
    refuse("is a synthetic release", real=f"{releases}/shapes-16")
    refuse("class lists", real=str(other))
    refuse("give at least 1", batch=0)
    refuse("give 65,536 at most", batch=10**12)
    assert not list(tmp_path.glob("*.json"))


def test_images_of_several_sizes_are_refused(extractor, tmp_path):
    release = write_release(tmp_path / "mixed", {"train": [random_images(1, 8)]})
    paths = [next(release.glob("16/*.parquet"))]
    larger = write_release(tmp_path / "larger", {"train": [random_images(1, 8, 32)]})
    paths.append(next(larger.glob("32/*.parquet")))
    mixed = pa.concat_tables([pq.read_table(path) for path in paths])
    pq.write_table(mixed, paths[0])
    image_set = open_image_set(larger, "32", "train")
    record = replace(
        image_set.manifest.shards[0],
        path=f"16/{paths[0].name}",
        bytes=paths[0].stat().st_size,
        sha256=sha256_file(paths[0]),
    )
    image_set = replace(
        image_set,
        release=release,
        config="16",
        manifest=replace(image_set.manifest, shards=(record,)),
    )
    with pytest.raises(UserError, match="several sizes"):
        list(iterate_features(image_set, extractor, tmp_path / "cache"))


def test_open_references_are_all_stored_splits(releases):
    assert [r.split for r in open_references(releases / "shapes-real", "16")] == ["train", "test"]


# -------------------------------------------------------------------------- comparability


def test_only_comparable_results_are_compared(scored):
    result = scored["shapes-16-16-train-efficientnet-lite0-64"]
    require_comparable([result, result], "fd_test")

    def refuse(match: str, value: str = "fd_test", **changes) -> None:
        with pytest.raises(UserError, match=match):
            require_comparable([result, replace(result, **changes)], value)

    features = {**result.protocol["features"], "resize": "adm"}
    refuse(
        "protocol features.resize: clean against adm",
        protocol=result.protocol | {"features": features},
    )
    other = {"reference_sha256": "0"}
    changed = {key: value | other for key, value in result.values.items() if "fd_" in key}
    refuse("reference images", values=result.values | changed)
    refuse("reference config: 16 against 32", reference=result.reference | {"config": "32"})
    early = {"fd_test": {k: v for k, v in result.values["fd_test"].items() if k[-6:] != "sha256"}}
    early_result = replace(result, values=early)  # it stated the identity of the release alone
    with pytest.raises(UserError, match="reference content_sha256"):
        require_comparable(
            [
                early_result,
                replace(early_result, reference=result.reference | {"content_sha256": "0"}),
            ],
            "fd_test",
        )
    fewer = result.values | {"fd_test": result.values["fd_test"] | {"n": 50}}
    refuse("n 70 against 50", values=fewer)
    require_comparable([result, replace(result, values=fewer)], "fd_train")
    refuse("data set shapes against others", dataset="others")
    refuse("no value 'kid'", value="kid")


def test_two_results_side_by_side(scored, tmp_path, capsys):
    """All values are compared that mean the same; of the others the reason is told."""
    result = scored["shapes-16-16-train-efficientnet-lite0-64"]
    fd = result.values["fd_test"]
    other = fd | {"value": fd["value"] + 5, "interval": [end + 5 for end in fd["interval"]]}
    fewer = result.values["fd_train"] | {"n": 50}
    values = result.values | {"fd_test": other, "fd_train": fewer}
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path, content in zip(paths, (result, replace(result, values=values)), strict=True):
        content.write(path)
    compare_scores(*paths, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert rows["fd_test"]["difference"] == pytest.approx(5)
    low, high = rows["fd_test"]["interval"]
    assert high - low == pytest.approx(2**0.5 * (fd["interval"][1] - fd["interval"][0]))
    assert "n 70 against 50" in rows["fd_train"]["refused"]
    compare_scores(*paths)
    told = capsys.readouterr().out
    assert "fd_train: not compared: " in told
    assert told.startswith("fd_test: the second is higher by 5, which is worse; ")
    with pytest.raises(UserError, match="n 70 against 50"):
        compare_scores(*paths, value="fd_train")
    with pytest.raises(UserError, match="unknown value of both results 'kid_test'"):
        compare_scores(*paths, value="kid_test")


def test_of_two_trainings_the_accuracies_are_compared(tmp_path, capsys):
    """The interval says what it leaves out; a value that is no number is left out itself."""
    paths = [tmp_path / "seed0.json", tmp_path / "seed1.json"]
    for path, top1 in zip(paths, (0.6, 0.7), strict=True):
        accuracy = {"value": top1, "interval": [top1 - 0.03, top1 + 0.03], "n": 1000}
        values = {"top1": accuracy, "cas": False, "steps": 40, "per_class": [{"top1": top1}]}
        subject = {"train": [{"name": "shapes-real"}]}
        Result("classifier", "shapes", subject, {"steps": 40}, {}, values).write(path)
    compare_scores(*paths, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == ["top1"]
    assert "not the chance of training" in rows["top1"]["interval_covers"]
    compare_scores(*paths)
    assert "not the chance of training" in capsys.readouterr().out
    with pytest.raises(UserError, match="per_class of shapes-real is not one number"):
        compare_scores(*paths, value="per_class")


def test_the_command_says_bad_input_in_one_line(releases):
    done = run(["score-release", f"{releases}/shapes-16:99", "--real", releases / "shapes-real"])
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: unknown configuration .*'99'; known: 16\n", done.stderr)


def test_values_of_another_call_stay_beside_its_own(releases, tmp_path):
    """Of the same images; what was measured against others is replaced."""
    options = {"out": tmp_path, "cache": tmp_path / "cache", "device": "cpu", "batch": BATCH}
    wanted = ([f"{releases}/shapes-16:16"], f"{releases}/shapes-real")
    for metrics in ("fd", "prdc"):
        score_release(*wanted, metrics=metrics, workers=1, **options)
    (path,) = tmp_path.glob("*.json")
    both = read_result(path)
    assert {"fd_train", "precision_train"} <= both.values.keys()
    replace(both, reference={**both.reference, "content_sha256": "0" * 64}).write(path)
    score_release(*wanted, metrics="fd", workers=1, **options)
    assert "precision_train" not in read_result(path).values
