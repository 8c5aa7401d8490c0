"""Classes of real images join their list: by ids, by names, whole or in part, in any order."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Value

from metrics.features.image_lists import ImageSet, open_image_set, read_image_list
from release.classes.class_list import class_difference, load_classes, same_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from release.real_sources.class_matching import join_list
from release.real_sources.class_names import entries_of
from release.real_sources.opening import open_source
from release.real_sources.source import RealSource, SourceName
from tests.forked_commands import run
from tests.rehearsal.imagenet_layouts import hub_names
from tests.sets.pictures import picture, save_parquet, table, write
from tests.sets.shapes import make_images, write_release

IMAGENET = load_classes("imagenet-1k")
WNIDS = [entry.wnid for entry in IMAGENET]
IMAGENETTE = {
    "tench": "n01440764",
    "English springer": "n02102040",
    "cassette player": "n02979186",
    "chain saw": "n03000684",
    "church": "n03028079",
    "French horn": "n03394916",
    "garbage truck": "n03417042",
    "gas pump": "n03425413",
    "golf ball": "n03445777",
    "parachute": "n03888257",
}


def named(names: Sequence[str]) -> RealSource:
    """A source of these classes, without images."""
    return RealSource("mine", "unknown", entries_of(names), {})


def images_of_classes(source: RealSource) -> dict[str, set[bytes]]:
    """The bytes of the images of each class of train."""
    found: dict[str, set[bytes]] = {}
    split = source.splits["train"]
    for i, label in enumerate(split.labels):
        found.setdefault(source.classes[label].wnid, set()).add(split.read(i))
    return found


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    open_source.cache_clear()


def test_a_thousand_wnid_folders_are_imagenet(tmp_path: Path):
    data = picture()
    for wnid in WNIDS:
        write(tmp_path / "mine" / "train" / wnid / "a.JPEG", data)
    source = open_source(str(tmp_path / "mine"))
    assert (source.name, source.classes) == ("imagenet-1k", IMAGENET)
    assert list(source.splits["train"].labels) == list(range(1000))
    assert source.origin() == {"class_list": "imagenet-1k"}
    assert source.release == "imagenet-1k-real"


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_hubs_names_are_found_in_any_order_and_labels_follow_them(seed: int | None):
    names = hub_names()
    order = list(range(1000)) if seed is None else np.random.default_rng(seed).permutation(1000)
    source = join_list(named([names[i] for i in order]), None)
    assert (source.name, source.classes) == ("imagenet-1k", IMAGENET)


def test_a_permutation_of_classes_gives_the_same_images_of_each_class(tmp_path: Path):
    """The same images as folders of wnids, and as tables with names in two orders."""
    names, chosen = hub_names(), [3, 134, 517, 0, 999, 638, 639, 517]
    for seed, label in enumerate(chosen):
        write(tmp_path / "folder" / "train" / WNIDS[label] / f"{seed}.jpg", picture(seed))
    found = [images_of_classes(open_source(str(tmp_path / "folder")))]
    for seed in (0, 1):
        place = np.random.default_rng(seed).permutation(1000)  # of each class in the source's list
        shuffled = [names[i] for i in np.argsort(place)]
        rows = table([int(place[label]) for label in chosen], shuffled)
        source = open_source(str(save_parquet(tmp_path / f"table{seed}", train=rows)))
        assert source.classes == IMAGENET
        assert list(source.splits["train"].labels) == chosen
        found.append(images_of_classes(source))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 7


def test_wnids_of_some_classes_join_as_these(tmp_path: Path):
    chosen = sorted(IMAGENETTE.values(), reverse=True)
    for seed, wnid in enumerate(chosen):
        write(tmp_path / "mine" / "train" / wnid / "a.jpg", picture(seed))
    source = open_source(str(tmp_path / "mine"))
    assert source.name == "imagenet-1k"
    assert [c.wnid for c in source.classes] == sorted(chosen)
    assert [c.label for c in source.classes] == list(range(10))
    assert {(c.name, c.prompt) for c in source.classes} <= {(c.name, c.prompt) for c in IMAGENET}
    assert source.release == "imagenet-1k-10-real"  # not where all classes go
    labels = source.origin()["class_list_labels"]
    assert [WNIDS[label] for label in labels] == sorted(chosen)
    assert "classes are 10 of the 1000 classes of imagenet-1k" in source.remarks


def test_names_of_some_classes_join_only_when_asked_to():
    names = list(reversed(IMAGENETTE))
    alone = join_list(named(names), None)
    assert [c.wnid for c in alone.classes] == names
    joined = join_list(named(names), "imagenet-1k")
    assert [c.wnid for c in joined.classes] == sorted(IMAGENETTE.values())
    tables = join_list(named([*hub_names()[:5]]), None)
    assert tables.name == "mine"
    assert "--classes-from imagenet-1k joins them" in tables.remarks[0]


@pytest.mark.parametrize("names", [["cat", "dog"], ["bag", "hat"], ["0", "1"], ["n1", "n2"]])
def test_classes_of_no_list_stay_as_they_are(names: list[str]):
    assert join_list(named(names), None) == named(names)


def test_wnids_that_the_list_lacks_are_said():
    source = join_list(named(["n01440764", "n99999999"]), None)
    assert source.name == "mine"
    assert source.remarks == (
        "classes are the source's own, not those of imagenet-1k, which has 1 of them but not "
        "'n99999999'",
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["tench", "cat", "unicorn"], "class list imagenet-1k has no class 'cat', 'unicorn'"),
        (["tench", "crane"], "has no class 'crane'"),  # a bird or a machine
        (["tench", "n01440764"], "classes 'tench' and 'n01440764' are both n01440764"),
    ],
)
def test_names_that_do_not_match_are_one_line(names: list[str], expected: str):
    with pytest.raises(UserError, match=expected):
        join_list(named(names), "imagenet-1k")


def test_an_unknown_list_is_told_with_those_there_are():
    with pytest.raises(UserError, match="unknown class list 'imagenet'; known: fashion-mnist, im"):
        join_list(named(["tench"]), "imagenet")


def own_list(path: Path, rows: Sequence[tuple[str, str, str]]) -> str:
    with path.open("w", newline="") as file:
        write_row = csv.writer(file).writerow
        write_row(["id", "wnid", "name", "prompt"])
        for i, row in enumerate(rows):
            write_row([i, *row])
    return str(path)


def test_a_list_of_ones_own_gives_ids_and_order_and_leaves_the_name(tmp_path: Path):
    path = own_list(tmp_path / "fruit.csv", [("f1", "Plum", "a plum"), ("f0", "Fig", "a fig")])
    source = join_list(named(["Fig", "Plum"]), path)
    assert [(c.label, c.wnid, c.name) for c in source.classes] == [
        (0, "f1", "Plum"),
        (1, "f0", "Fig"),
    ]
    assert source.name == "mine"
    assert source.origin() == {"class_list": "fruit.csv"}


def test_a_class_list_that_is_no_utf8_is_one_line(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("id,wnid,name,prompt\n0,a,b,c\n", encoding="utf-16")
    with pytest.raises(UserError, match="cannot be read as CSV in UTF-8"):
        load_classes(str(path))


def test_classes_are_compared_by_their_ids(tmp_path: Path):
    ours = load_classes(own_list(tmp_path / "a.csv", [("x", "A", "an A"), ("y", "B", "a B")]))
    theirs = load_classes(own_list(tmp_path / "b.csv", [("x", "x", "photo"), ("y", "y", "other")]))
    assert same_classes(ours, theirs)
    assert not same_classes(ours, theirs[::-1])
    assert class_difference(["x", "y"], ["x", "y"]) is None
    assert class_difference(["x", "y"], ["x", "z"]) == "label 1 is 'y' and 'z'"
    assert "of which one has 'y'" in (class_difference(["x", "y"], ["x"]) or "")


def test_an_imported_folder_is_a_release_of_the_lists_classes(tmp_path: Path):
    for seed, wnid in enumerate(("n02102040", "n01440764")):
        write(tmp_path / "photos" / "train" / wnid / "a.JPEG", picture(seed))
        write(tmp_path / "photos" / "val" / wnid / "b.JPEG", picture(seed))
    put = ["build-dataset", "--real", tmp_path / "photos", "--views", "8", "--out", tmp_path / "r"]
    result = run([*put, "--json"])
    assert result.returncode == 0, result.stderr
    assert "imagenet-1k: classes are 2 of the 1000 classes of imagenet-1k" in result.stderr
    manifest = read_manifest(tmp_path / "r")
    assert manifest.dataset == "imagenet-1k"
    assert [(c.label, c.wnid) for c in manifest.classes] == [(0, "n01440764"), (1, "n02102040")]
    assert manifest.origin["class_list_labels"] == [0, 217]
    assert set(manifest.splits()["8"]) >= {"train", "validation"}
    rows = pq.read_table(tmp_path / "r" / "8").to_pylist()
    assert {(row["label"], row["class_id"]) for row in rows} == {(0, WNIDS[0]), (1, WNIDS[217])}


def test_options_of_a_source_are_refused_without_one():
    result = run(["build-dataset", "--recipe", "fashion-mnist", "--classes-from", "imagenet-1k"])
    assert result.returncode == 2
    assert "--classes-from: of an import, with --real; leave it out" in result.stderr


def test_labels_without_names_are_a_lists_ids_only_when_asked_to(tmp_path: Path):
    rows = table([0, 217], [str(i) for i in range(218)])
    rows = rows.cast_column("label", Value("int64"))
    root = str(save_parquet(tmp_path / "mine", train=rows))
    assert open_source(root).name == "mine"
    joined = open_source(str(SourceName(root, classes_from="imagenet-1k")))
    assert list(joined.splits["train"].labels) == [0, 217]
    assert joined.classes == IMAGENET


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated and a real release of six classes, three images each."""
    folder = tmp_path_factory.mktemp("shapes")
    for seed, kind in enumerate(("synthetic", "real")):
        write_release(folder / kind, {"train": make_images(3, seed)}, kind=kind)
    return folder


def some_classes(image_set: ImageSet, *wnids: str) -> ImageSet:
    chosen = [entry for entry in image_set.manifest.classes if entry.wnid in wnids]
    classes = tuple(replace(entry, label=i) for i, entry in enumerate(chosen))
    return replace(image_set, manifest=replace(image_set.manifest, classes=classes))


def test_of_a_release_of_all_classes_those_of_the_reference_are_scored(
    shapes: Path, tmp_path: Path
):
    everything = open_image_set(shapes / "synthetic", "16", "train")
    reference = some_classes(open_image_set(shapes / "real", "16", "train"), "s1", "s4")
    taken = everything.of_classes_of(reference)
    assert same_classes(taken.manifest.classes, reference.manifest.classes)
    assert taken.count(tmp_path) == 6
    assert taken.count_per_class(tmp_path).tolist() == [3, 3]
    lists = [read_image_list(taken, shard, tmp_path) for shard in taken.shards()]
    whole = [read_image_list(everything, shard, tmp_path) for shard in taken.shards()]
    for part, full in zip(lists, whole, strict=True):
        keep = np.isin(full.labels, [1, 4])
        assert part.rows.tolist() == full.rows[keep].tolist()
        assert part.labels.tolist() == np.searchsorted([1, 4], full.labels[keep]).tolist()
        assert part.image_ids == tuple(np.array(full.image_ids)[keep])
    assert taken.identity["classes"] == ["s1", "s4"]
    assert reference.of_classes_of(everything) is reference
    assert "classes" not in everything.of_classes_of(everything).identity
