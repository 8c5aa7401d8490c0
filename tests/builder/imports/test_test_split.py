"""A test split for data without one: by class, by content, the same wherever it is asked for."""

import errno
from pathlib import Path

import numpy as np
import pytest

from release.errors import UserError
from release.real_sources.folder import FolderSplit
from release.real_sources.opening import open_source
from release.real_sources.source import RealSource, SourceName


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/synthetic-imagenet/test-splits"


def put(root: Path, classes: dict[str, int]) -> Path:
    """CLASS/NUMBER.png below `root`, each with content of its own."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03d}.png").write_bytes(f"{name} {i}".encode())
    return root


def divided(root: Path, share: float = 0.2, seed: int | None = None) -> RealSource:
    name = SourceName(
        str(root), test_share=str(share), split_seed=None if seed is None else str(seed)
    )
    return open_source(str(name))


def contents(source: RealSource, split: str) -> set[bytes]:
    data = source.splits[split]
    return {data.read(i) for i in range(len(data.labels))}


def counts(source: RealSource, split: str) -> list[int]:
    return np.bincount(source.splits[split].labels, minlength=len(source.classes)).tolist()


def test_each_class_gives_its_share_and_one_image_at_least(tmp_path: Path):
    source = divided(put(tmp_path / "photos", {"cat": 10, "dog": 23, "newt": 2}))
    assert [entry.name for entry in source.classes] == ["cat", "dog", "newt"]
    assert counts(source, "test") == [2, 5, 1]
    assert counts(source, "train") == [8, 18, 1]
    assert not contents(source, "test") & contents(source, "train")
    assert source.splits["test"].labels is source.splits["test"].labels  # read once an image
    assert source.splits["test"].key(0).startswith("cat/")
    assert source.remarks[-1].startswith("8 of 35 images are its test split, of each class, the sh")
    assert source.origin()["test_rule"].startswith("of each class, the share 0.2 with the lowest")


def test_it_is_decided_by_seed_and_content_alone(tmp_path: Path):
    first = divided(put(tmp_path / "a", {"cat": 40, "dog": 40}))
    renamed = put(tmp_path / "b", {"cat": 40, "dog": 40})
    for path in list(renamed.rglob("*.png")):
        path.rename(path.with_stem(f"z{999 - int(path.stem)}"))
    assert contents(divided(renamed), "test") == contents(first, "test")
    assert contents(divided(tmp_path / "a", seed=0), "test") == contents(first, "test")
    assert contents(divided(tmp_path / "a", seed=1), "test") != contents(first, "test")


def test_images_are_read_for_it_once_and_when_one_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each worker of an import asks for the same split."""
    root, read = put(tmp_path / "photos", {"cat": 10, "dog": 10}), []

    def counted(self: FolderSplit, i: int) -> bytes:
        read.append(i)
        return whole(self, i)

    whole = FolderSplit.read
    monkeypatch.setattr(FolderSplit, "read", counted)
    splits, reads = [], []
    for change in ("none", "none", "cache", "image"):
        for file in cache.glob("*/*.parquet") if change == "cache" else ():
            content = bytearray(file.read_bytes())
            content[len(content) // 3] ^= 1
            file.write_bytes(content)
        if change == "image":
            (root / "cat/000.png").write_bytes(b"another")
        open_source.cache_clear()
        read.clear()
        source = divided(root)
        reads.append(len(read))
        splits.append([source.splits["test"].key(i) for i in range(4)])
    assert reads == [20, 0, 20, 20]
    assert splits[0] == splits[1] == splits[2]


def test_a_disk_in_trouble_decides_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(FolderSplit, "read", fail)
    with pytest.raises(UserError, match=r"cat/000.png cannot be read now .*run again"):
        divided(put(tmp_path / "photos", {"cat": 10, "dog": 10}))


def test_copies_stand_on_one_side(tmp_path: Path):
    root = put(tmp_path / "photos", {"cat": 12, "dog": 12})
    for path in sorted(root.rglob("*.png")):
        (path.parent / f"copy-of-{path.name}").write_bytes(path.read_bytes())
        other = root / ("dog" if path.parent.name == "cat" else "cat")
        (other / f"also-{path.name}").write_bytes(path.read_bytes())
    source = divided(root, 0.3)
    assert not contents(source, "test") & contents(source, "train")


def test_a_train_split_is_divided_too(tmp_path: Path):
    put(tmp_path / "photos/train", {"cat": 10, "dog": 10})
    assert counts(divided(tmp_path / "photos", 0.5), "test") == [5, 5]


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ({"train/cat": 3, "test/cat": 3}, r"photos has the splits test, train already: leave"),
        ({"cat": 5, "dog": 1}, r"class 'dog' has 1 different image, too few to"),
        ({"ape": 1, "cat": 5, "dog": 1}, r"classes 'ape', 'dog' have too few different images to"),
    ],
)
def test_what_cannot_be_divided_is_one_line(tmp_path: Path, classes: dict[str, int], told: str):
    put(tmp_path / "photos", classes)
    with pytest.raises(UserError, match=told):
        divided(tmp_path / "photos")
