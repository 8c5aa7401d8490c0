"""Sources of real images: what is an image and a class, each layout, labels, what is said."""

import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from release.errors import UserError
from release.real_sources.opening import open_source
from release.real_sources.source import RealSource, SourceName
from tests.rehearsal.imagenet_layouts import (
    Images,
    by_class,
    devkit,
    kaggle,
    tar_of,
    tars,
    tiny,
    write_kaggle,
)
from tests.sets.pictures import picture, save_parquet, table, write

WNIDS = ("n01440764", "n01443537", "n02102040")


def put(root: Path, *names: str) -> Path:
    """Files below `root`, pictures all, whatever they are called."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed))
    return root


def contents(source: RealSource) -> dict[str, dict[str, tuple[str, bytes]]]:
    """For each split the class and the bytes of each key."""
    return {
        name: {
            split.key(i): (source.classes[label].wnid, split.read(i))
            for i, label in enumerate(split.labels)
        }
        for name, split in source.splits.items()
    }


def keys(source: RealSource, split: str = "train") -> list[str]:
    return [source.splits[split].key(i) for i in range(len(source.splits[split].labels))]


def said(source: RealSource) -> str:
    return "\n".join(source.remarks)


# Files and folders that are nobody's


def test_what_systems_leave_behind_is_neither_class_nor_image(tmp_path: Path):
    put(
        tmp_path,
        *("train/cat/a.JPG", "train/dog/b.Jpeg", "train/cat/._a.JPG", "train/cat/Thumbs.db"),
        *("train/.ipynb_checkpoints/x.jpg", "train/__MACOSX/x.jpg", "train/@eaDir/x.jpg"),
        *("__MACOSX/cat/x.jpg", "train/.DS_Store", "train/dog/.ipynb_checkpoints/b.jpg"),
    )
    source = open_source(str(tmp_path))
    assert [c.wnid for c in source.classes] == ["cat", "dog"]
    assert list(source.splits) == ["train"]
    assert keys(source) == ["cat/a.JPG", "dog/b.Jpeg"]
    assert said(source) == (
        "train is the only split: scores and accuracies need another; --test-share 0.2 makes a "
        "fifth of it one"
    )


def test_what_pillow_reads_is_taken_and_the_rest_is_counted_in_one_line(tmp_path: Path):
    taken = [f"train/cat/{i}{s}" for i, s in enumerate((".tif", ".TIFF", ".jfif", ".gif", ".bmp"))]
    put(tmp_path, *taken, "train/cat/a.avif", "train/cat/a.txt", "train/cat/b.txt", "train/x.xml")
    source = open_source(str(tmp_path))
    assert len(keys(source)) == 6
    assert "not taken: 2 .txt, 1 .xml; images are .apng .avif" in said(source)


@pytest.mark.parametrize("stray", ["train/cat/more/b.jpg", "train/cat/b.jpg/x.txt", "train/b.jpg"])
def test_images_outside_of_class_folders_are_said(tmp_path: Path, stray: str):
    source = open_source(str(put(tmp_path, "train/cat/a.jpg", stray)))
    assert keys(source) == ["cat/a.jpg"]
    assert "not taken: 1 " in said(source)


def test_a_class_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg")
    scandir = os.scandir

    def refuse(path: Path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"train/dog cannot be read: Permission denied"):
        open_source(str(tmp_path))


def test_a_class_without_images_is_refused_and_one_that_a_split_lacks_is_said(tmp_path: Path):
    put(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "test/cat/c.jpg")
    source = open_source(str(tmp_path))
    assert "test has no images of 1 of the 2 classes: 'dog'" in said(source)
    open_source.cache_clear()
    put(tmp_path, "train/logs/a.txt")
    with pytest.raises(UserError, match="class 'logs': no images in any split"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("caf\u00e9", "cafe\u0301")])
def test_two_spellings_of_a_class_in_two_splits_are_named(tmp_path: Path, one: str, other: str):
    put(tmp_path, f"train/{one}/a.jpg", f"test/{other}/b.jpg")
    with pytest.raises(UserError, match="differ only in case or in how accents") as error:
        open_source(str(tmp_path))
    assert ascii(one) in str(error.value)
    assert ascii(other) in str(error.value)


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(UserError, match=r"b'caf\\xe9' is not UTF-8; rename it"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("name", ["notes/a.txt", "cat/a.jpg", "a.jpg"])
def test_a_folder_in_no_layout_gets_one_line_that_lists_them(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="SPLIT/CLASS/image") as error:
        open_source(str(put(tmp_path, name)))
    assert "\n" not in str(error.value)
    assert "WebDataset" in str(error.value)


def test_classes_without_splits_are_told_where_to_go(tmp_path: Path):
    put(tmp_path, *(f"class{i}/a.jpg" for i in range(50)))
    with pytest.raises(UserError, match=r"put them into .*/train/ and .*/test/") as error:
        open_source(str(tmp_path))
    assert "50 images in 'class0', 'class1', 'class10' … (50)" in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "train/deep/cat/a.jpg",
            "its class folders stand deeper, in {}/train/deep: name that fold",
        ),
        (
            "one/two/train/cat/a.jpg",
            "its class folders stand deeper, in {}/one/two/train: name {}/o",
        ),
        ("a.jpg", "1 images in no class folder: put those of each class into a folder of its own"),
        ("val/a.jpg", "1 images in 'val' have no class: put them into class folders, or beside"),
        ("cat/a.jpg", "1 images in 'cat' have no split above their class: --test-share 0.2 makes"),
        ("notes/a.txt", "no images, but 1 .txt: images are .apng"),
    ],
)
def test_classes_at_the_wrong_level_are_told_first_then_the_cure(
    tmp_path: Path, name: str, told: str
):
    with pytest.raises(UserError) as error:
        open_source(str(put(tmp_path, name)))
    assert str(error.value).startswith(f"{tmp_path}: {told.replace('{}', str(tmp_path))}")


def test_folders_of_no_splits_name_are_told(tmp_path: Path):
    source = open_source(str(put(tmp_path / "one", "pets/cat/a.jpg", "pets/dog/a.jpg")))
    assert "taken for splits: 'pets'; if the folders in one are classes, name that" in said(source)
    assert "taken for splits" not in said(
        open_source(str(put(tmp_path / "other", "test/cat/a.jpg")))
    )


# ImageNet as its distributors ship it


def expected(source: RealSource) -> None:
    """Two images of each of WNIDS in train, one in validation, as `distribution` makes them."""
    found = contents(source)
    assert list(found) == ["train", "validation"]
    for number, wnid in enumerate(WNIDS):
        for i in range(2):
            name = f"{wnid}_{i}.JPEG"
            assert found["train"][f"{wnid}/{name}"] == (wnid, picture(10 * number + i))
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        assert found["validation"][f"{wnid}/{name}"] == (wnid, picture(100 + number))
    assert sum(map(len, found.values())) == 9


IMAGES = Images(
    {w: {f"{w}_{i}.JPEG": picture(10 * n + i) for i in range(2)} for n, w in enumerate(WNIDS)},
    {f"ILSVRC2012_val_{n + 1:08d}.JPEG": picture(100 + n) for n in range(3)},
    WNIDS,
)
LAYOUTS: Sequence[Callable[[Path, Images], None]] = (by_class, kaggle, devkit, tiny, tars)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_of_imagenet_gives_the_same_images(
    layout: Callable[[Path, Images], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout(tmp_path / "data", IMAGES)
    source = open_source(str(tmp_path / "data"))
    expected(source)
    assert source.name == "imagenet-1k"
    if layout in (kaggle, tiny):
        assert "without labels, left out: 1 images in 'test'" in said(source)


def test_an_archive_is_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tars(tmp_path / "data", IMAGES)
    open_source(str(tmp_path / "data"))
    open_source.cache_clear()
    monkeypatch.setattr(tarfile, "open", None)
    (tmp_path / "data" / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    write_kaggle(tmp_path / "data", WNIDS)
    expected(open_source(str(tmp_path / "data")))


def test_a_damaged_index_of_an_archive_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One wrong offset would be another image."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tars(tmp_path / "data", IMAGES)
    open_source(str(tmp_path / "data"))
    kept = list((tmp_path / "cache").rglob("*.parquet"))
    assert len(kept) == 2
    for file in kept:
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    open_source.cache_clear()
    expected(open_source(str(tmp_path / "data")))


@pytest.mark.parametrize("layout", [by_class, tars], ids=lambda f: f.__name__)
def test_a_version_changes_with_the_file_and_not_without(
    layout: Callable[[Path, Images], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout(tmp_path / "data", IMAGES)
    versions = []
    for change in (False, False, True):
        for path in (tmp_path / "data").rglob("*") if change else ():
            os.utime(path, (1, 1))
        open_source.cache_clear()
        split = open_source(str(tmp_path / "data")).splits["train"]
        versions.append([split.version(i) for i in range(6)])
    assert versions[0] == versions[1]
    assert not set(versions[1]) & set(versions[2])


def test_a_cut_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tars(tmp_path, IMAGES)
    archive = tmp_path / "ILSVRC2012_img_train.tar"
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"train\.tar cannot be read as an uncompressed tar"):
        open_source(str(tmp_path))


def test_a_cut_devkit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tars(tmp_path, IMAGES)
    archive = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"devkit_t12\.tar\.gz cannot be read"):
        open_source(str(tmp_path))


def test_archives_that_are_not_taken_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """image-net.org has the test images beside the others; theirs have no labels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tars(tmp_path / "data", IMAGES)
    other = tar_of({"test/ILSVRC2012_test_00000001.JPEG": picture(7)})
    (tmp_path / "data/ILSVRC2012_img_test_v10102019.tar").write_bytes(other)
    expected(open_source(str(tmp_path / "data")))


def test_validation_images_that_the_truth_does_not_name_are_refused(tmp_path: Path):
    kaggle(tmp_path, IMAGES)
    put(tmp_path, "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000009.JPEG")
    with pytest.raises(UserError, match=r"val: 1 of 4 images have no label .*00000009"):
        open_source(str(tmp_path))


# Data sets that `datasets` loads


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    open_source.cache_clear()


def test_a_local_folder_of_parquet_files_is_read(tmp_path: Path):
    root = save_parquet(tmp_path / "pets", train=table([1, 0, 1]), test=table([0]))
    source = open_source(str(root))
    assert source.name == "pets"
    assert [c.wnid for c in source.classes] == ["cat", "dog"]
    assert list(source.splits["train"].labels) == [1, 0, 1]
    assert contents(source)["test"] == {"000000": ("cat", picture(0))}


def test_what_save_to_disk_wrote_is_read(tmp_path: Path):
    DatasetDict(train=table([1, 0]), valid=table([1])).save_to_disk(tmp_path / "pets")
    source = open_source(str(tmp_path / "pets"))
    assert contents(source)["validation"] == {"000000": ("dog", picture(0))}
    assert list(source.splits["train"].labels) == [1, 0]


def test_a_web_dataset_needs_its_label_column_and_its_list(tmp_path: Path):
    files: dict[str, bytes] = {}
    for i, label in enumerate((0, 217, 0)):
        files |= {f"{i:04d}.jpg": picture(i), f"{i:04d}.cls": str(label).encode()}
    write(tmp_path / "shards" / "train-000000.tar", tar_of(files))
    source = open_source(str(SourceName(str(tmp_path / "shards"), classes_from="imagenet-1k")))
    assert [wnid for wnid, _ in contents(source)["train"].values()] == [
        *("n01440764", "n02102040", "n01440764")
    ]
    assert "taken for the ids of imagenet-1k" in said(source)


def test_a_split_without_labels_is_left_out_and_said(tmp_path: Path):
    source = open_source(
        str(save_parquet(tmp_path / "x", train=table([0, 1]), test=table([-1, -1])))
    )
    assert list(source.splits) == ["train"]
    assert "test is left out: 2 images without labels" in said(source)


@pytest.mark.parametrize("missing", [-1, None])
def test_a_split_with_some_labels_missing_is_refused(tmp_path: Path, missing: int | None):
    with pytest.raises(UserError, match="1 of 3 labels of train are missing"):
        open_source(str(save_parquet(tmp_path / "x", train=table([0, missing, 1]))))


def test_a_source_of_which_nothing_is_left_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"nothing of .* can be imported: train is left out"):
        open_source(str(save_parquet(tmp_path / "x", train=table([-1, -1]))))


def test_several_columns_are_never_chosen_between_in_silence(tmp_path: Path):
    both = table([0, 1], column="fine_label").add_column("coarse_label", [1, 0])
    both = both.cast_column("coarse_label", ClassLabel(names=["pet", "wild"]))
    masks = [{"bytes": picture(9), "path": None}] * 2
    both = both.add_column("mask", masks).cast_column("mask", Image())
    root = str(save_parquet(tmp_path / "x", train=both))
    with pytest.raises(UserError, match=r"2 image columns \(image, mask\): say .*--image-column"):
        open_source(root)
    with pytest.raises(UserError, match=r"2 label columns \(fine_label, coarse_label\)"):
        open_source(str(SourceName(root, image_column="image")))
    chosen = open_source(str(SourceName(root, None, "mask", "coarse_label")))
    assert [c.wnid for c in chosen.classes] == ["pet", "wild"]
    with pytest.raises(
        UserError, match=r"unknown label column of .* 'absent'; known: coarse_label"
    ):
        open_source(str(SourceName(root, None, "mask", "absent")))


def test_several_configurations_are_listed_and_one_can_be_named(tmp_path: Path):
    for config, label in (("full", 0), ("small", 1)):
        write(tmp_path / config / "x", b"")
        table([label]).to_parquet(tmp_path / config / "train.parquet")
    files = "".join(f"- config_name: {c}\n  data_files: {c}/*.parquet\n" for c in ("full", "small"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    with pytest.raises(UserError, match=r"2 configurations: .*:full does; it has full, small"):
        open_source(str(tmp_path))
    source = open_source(f"{tmp_path}:small")
    assert list(source.splits["train"].labels) == [1]


def test_texts_and_numbers_are_labels_too(tmp_path: Path):
    rows = [{"bytes": picture(i), "path": None} for i in range(3)]
    features = Features({"img": Image(), "labels": Value("string")})
    texts = Dataset.from_dict({"img": rows, "labels": ["plum", "fig", "plum"]}, features=features)
    source = open_source(str(save_parquet(tmp_path / "texts", train=texts)))
    assert [c.wnid for c in source.classes] == ["fig", "plum"]
    assert list(source.splits["train"].labels) == [1, 0, 1]
    numbers = Dataset.from_dict({"img": rows, "label": [2, 0, 2]}).cast_column("img", Image())
    source = open_source(str(save_parquet(tmp_path / "numbers", train=numbers)))
    assert [c.wnid for c in source.classes] == ["0", "1", "2"]
    assert "numbers without names: classes are called 0 to 2; --classes-from LIST" in said(source)
    ids = Dataset.from_dict({"img": rows, "label": [2, 0, 2**31]}).cast_column("img", Image())
    with pytest.raises(
        UserError, match="numbers up to 2,147,483,648, of which 3 occur; number the"
    ):
        open_source(str(save_parquet(tmp_path / "ids", train=ids)))


@pytest.mark.parametrize("dtype", ["uint8", "uint64", "int16"])
def test_labels_are_whole_numbers_of_any_kind(dtype: str, tmp_path: Path):
    rows = [{"bytes": picture(i), "path": None} for i in range(3)]
    features = Features({"img": Image(), "label": Value(dtype)})
    data = Dataset.from_dict({"img": rows, "label": [2, 0, 2]}, features=features)
    source = open_source(str(save_parquet(tmp_path / "data", train=data)))
    assert list(source.splits["train"].labels) == [2, 0, 2]


def test_another_column_of_a_row_does_no_harm(tmp_path: Path):
    rows = [{"bytes": picture(i), "path": None} for i in range(2)]
    broken = [{"bytes": b"no image", "path": None}] * 2
    features = Features({"image": Image(), "mask": Image(), "label": Value("int64")})
    data = Dataset.from_dict({"image": rows, "mask": broken, "label": [0, 1]}, features=features)
    folder = save_parquet(tmp_path / "data", train=data)
    split = open_source(str(SourceName(str(folder), image_column="image"))).splits["train"]
    assert [split.read(i) for i in range(2)] == [picture(0), picture(1)]


def test_a_class_has_an_id_whatever_it_is_called(tmp_path: Path):
    """Ids become parts of names of files, and lists of them are read again."""
    names = ["Ram C/V Van 2012", ".hidden", "a:b"]
    source = open_source(str(save_parquet(tmp_path / "cars", train=table([0, 1, 2], names))))
    assert [c.name for c in source.classes] == names
    assert [c.wnid for c in source.classes] == ["Ram C-V Van 2012", "-hidden", "a-b"]
    assert list(source.splits["train"].labels) == [0, 1, 2]
    rows = [{"bytes": picture(i), "path": None} for i in range(2)]
    texts = Dataset.from_dict({"image": rows, "label": ["x/y", "b"]}).cast_column("image", Image())
    source = open_source(str(save_parquet(tmp_path / "texts", train=texts)))
    assert ([c.wnid for c in source.classes], list(source.splits["train"].labels)) == (
        ["b", "x-y"],
        [1, 0],
    )
    folder = put(tmp_path / "folder", "train/a:b/1.png", "train/c/1.png", "test/a:b/2.png")
    assert [c.wnid for c in open_source(str(folder)).classes] == ["a-b", "c"]
    with pytest.raises(UserError, match="'a/b' and 'a:b' would both have the id 'a-b': rename one"):
        open_source(str(save_parquet(tmp_path / "same", train=table([0, 1], ["a/b", "a:b"]))))
    with pytest.raises(UserError, match="give it 1 to 255 bytes"):
        open_source(str(save_parquet(tmp_path / "long", train=table([0, 1], ["a" * 256, "b"]))))


@pytest.mark.parametrize("name", ["fit", "tuning"])
def test_a_split_called_as_a_part_of_train_is_refused(name: str, tmp_path: Path):
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", f"{name}/cat/2.png", f"{name}/dog/2.png")
    with pytest.raises(UserError, match=f"split '{name}': a release calls a part of .*; rename"):
        open_source(str(tmp_path))


def script(root: Path) -> None:
    write(root / "x.py", b"")
    put(root, "data.parquet")
    (root / f"{root.name}.py").write_text("import datasets")


def garbage(root: Path) -> None:
    put(root, "train.parquet")


def other_sizes(root: Path) -> None:
    save_parquet(root, train=table([0, 1]))
    (root / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n"
        "    dtype:\n      class_label:\n        names:\n          '0': cat\n          '1': dog\n"
        "  splits:\n  - name: train\n    num_bytes: 9\n    num_examples: 9\n---\n"
    )


def other_columns(root: Path) -> None:
    save_parquet(root, train=table([0, 1]), test=table([0], names=["dog", "cat"]))


@pytest.mark.parametrize("fault", [script, garbage, other_sizes, other_columns])
def test_a_broken_data_set_is_one_line(fault: Callable[[Path], None], tmp_path: Path):
    fault(tmp_path / "broken")
    with pytest.raises(UserError, match="broken") as error:
        open_source(str(tmp_path / "broken"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/no/such", "./absent", "a/b/c", "pets/"])
def test_a_missing_folder_is_called_a_missing_folder(name: str):
    with pytest.raises(UserError, match="not at hand: there is no such folder"):
        open_source(name)


def test_options_of_a_source_travel_in_its_name():
    name = SourceName("org/a?b:c", "my list.csv", None, "fine&label")
    assert SourceName.parse(str(name)) == name
    assert SourceName.parse("what?") == SourceName("what?")
    with pytest.raises(UserError, match="unknown option of a source 'colour'; known: classes_from"):
        SourceName.parse("org/a?colour=red")


def test_a_folder_may_have_a_question_mark_in_its_name(tmp_path: Path):
    folder = put(tmp_path / "what?size=2", "train/cat/a.png", "train/dog/a.png", "test/cat/b.png")
    assert open_source(str(folder)).name == "what?size=2"
    assert SourceName.parse(f"{folder}?split_seed=3") == SourceName(str(folder), split_seed="3")
