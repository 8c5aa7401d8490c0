"""ImageNet as its distributors ship it: the same images written in each layout.

An `Images` holds the bytes; a layout is a function that writes them below a folder. Those of
image-net.org and Kaggle are here; what `load_dataset` reads is at the end.
"""

import csv
import importlib.util
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from datasets.arrow_writer import ArrowWriter
from scipy.io import savemat

from release.classes.class_list import load_classes
from tests.sets.pictures import picture, write

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Images:
    """train: bytes by wnid and file name. val: by file name; wnids: of each of them, in order."""

    train: Mapping[str, Mapping[str, bytes]]
    val: Mapping[str, bytes]
    wnids: Sequence[str]

    def rows(self, split: str) -> Iterator[tuple[str, str, bytes]]:
        """wnid, file name and bytes of each image of train or validation."""
        if split == "train":
            for wnid, files in self.train.items():
                yield from ((wnid, name, data) for name, data in files.items())
        else:
            for wnid, (name, data) in zip(self.wnids, self.val.items(), strict=True):
                yield wnid, name, data


def by_class(root: Path, images: Images) -> None:
    """train/WNID/image and val/WNID/image, as most people have it."""
    for split, folder in zip(SPLITS, ("train", "val"), strict=True):
        for wnid, name, data in images.rows(split):
            write(root / folder / wnid / name, data)


def _write_flat(root: Path, images: Images) -> None:
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid, name, data in images.rows("train"):
        write(base / "train" / wnid / name, data)
    for name, data in images.val.items():
        write(base / "val" / name, data)
    write(root / "ILSVRC/Annotations/CLS-LOC/train/x.xml", b"<annotation/>")


def kaggle(root: Path, images: Images) -> None:
    """A flat val, its labels as CSV; a test without labels."""
    _write_flat(root, images)
    write_kaggle(root, images.wnids)
    write(root / "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG", picture(0))


def devkit(root: Path, images: Images) -> None:
    """A flat val, its labels as the development kit."""
    _write_flat(root, images)
    write_devkit(root / "ILSVRC2012_devkit_t12" / "data", images)


def tiny(root: Path, images: Images) -> None:
    """As Tiny ImageNet: images in a folder `images` of each class, labels of val as a table."""
    for wnid, name, data in images.rows("train"):
        write(root / "train" / wnid / "images" / name, data)
    for wnid in images.train:
        write(root / "train" / wnid / f"{wnid}_boxes.txt", b"")
    for name, data in images.val.items():
        write(root / "val" / "images" / name, data)
    named = zip(images.val, images.wnids, strict=True)
    lines = [f"{name}\t{wnid}\t0\t0\t9\t9\n" for name, wnid in named]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    write(root / "test/images/test_0.JPEG", picture(0))


def tars(root: Path, images: Images) -> None:
    """As image-net.org: a tar of a tar a class, a tar of val, the development kit packed."""
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in images.train.items()}
    junk = {"._n01440764.tar": b"not a tar", "README.txt": b""}
    write(root / "ILSVRC2012_img_train.tar", tar_of(inner | junk))
    write(root / "ILSVRC2012_img_val.tar", tar_of(images.val))
    write_devkit(root / "kit" / "ILSVRC2012_devkit_t12" / "data", images)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(root / "kit" / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")


def write_kaggle(root: Path, wnids: Sequence[str]) -> None:
    rows = [[f"ILSVRC2012_val_{n + 1:08d}", f"{w} 1 2 3 4"] for n, w in enumerate(wnids)]
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ImageId", "PredictionString"], *reversed(rows)])


def write_devkit(folder: Path, images: Images) -> None:
    """ids of ILSVRC that are in another order than the wnids, an inner node of the tree last."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    count = len(images.train)
    ids = {wnid: (n + count - 1) % count + 1 for n, wnid in enumerate(images.train)}
    rows = [(number, wnid, "words", 0) for wnid, number in ids.items()]
    rows.append((count + 1, "n00001740", "thing", 2))
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, kind)})
    truth = "".join(f"{ids[wnid]}\n" for wnid in images.wnids)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# What load_dataset reads


def hub_names() -> list[str]:
    """As ILSVRC/imagenet-1k names its classes: timm's lemmas, the second crane told apart."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    lemmas = dict(line.split("\t") for line in path.read_text().splitlines())
    wnids = [entry.wnid for entry in load_classes("imagenet-1k")]
    names = [lemmas[wnid] for wnid in wnids]
    assert names[0] == "tench, Tinca tinca"
    names[wnids.index("n03126707")] = "crane2"
    assert len(set(names)) == len(names)
    return names


def tables(
    images: Images, names: Mapping[str, str], image: str = "image", label: str = "label"
) -> dict[str, Dataset]:
    """Each split as a table, and test without labels. names: of each wnid, in the order of labels.

    As in ILSVRC/imagenet-1k the path in an image's struct is its file name.
    """
    number = {wnid: i for i, wnid in enumerate(names)}
    features = Features({image: Image(), label: ClassLabel(names=list(names.values()))})
    found = {}
    for split in SPLITS:
        rows = list(images.rows(split))
        columns: dict[str, Any] = {
            image: [{"bytes": data, "path": name} for _, name, data in rows],
            label: [number[wnid] for wnid, _, _ in rows],
        }
        found[split] = Dataset.from_dict(columns, features=features)
    unlabelled = {image: [{"bytes": picture(0), "path": "test.JPEG"}], label: [-1]}
    return found | {"test": Dataset.from_dict(unlabelled, features=features)}


def parquet_shards(root: Path, splits: Mapping[str, Dataset], shards: int = 2) -> None:
    """data/SPLIT-00000-of-00002.parquet and so on, as the Hub has them."""
    (root / "data").mkdir(parents=True)
    for split, data in splits.items():
        count = min(shards, len(data))
        for i in range(count):
            part = data.shard(count, i, contiguous=True)
            part.to_parquet(root / "data" / f"{split}-{i:05d}-of-{count:05d}.parquet")


def arrow_shards(root: Path, splits: Mapping[str, Dataset], shards: int = 2) -> None:
    """SPLIT-00000-of-00002.arrow and so on, as load_dataset leaves them in its cache."""
    root.mkdir(parents=True)
    for split, data in splits.items():
        count = min(shards, len(data))
        for i in range(count):
            path = root / f"{split}-{i:05d}-of-{count:05d}.arrow"
            with ArrowWriter(path=str(path), features=data.features) as writer:
                writer.write_table(data.shard(count, i, contiguous=True).with_format("arrow")[:])
                writer.finalize()


def snapshot(root: Path, splits: Mapping[str, Dataset]) -> None:
    """A commit of a Hub data set as huggingface_hub keeps it: links into a folder of blobs."""
    blobs = root.parent / f"{root.name}-blobs"
    parquet_shards(blobs, splits)
    (root / "data").mkdir(parents=True)
    for file in (blobs / "data").iterdir():
        (root / "data" / file.name).symlink_to(Path("../..") / blobs.name / "data" / file.name)


def web_dataset(root: Path, images: Images, label: Mapping[str, int], per_shard: int) -> None:
    """As timm/imagenet-1k-wds: PREFIX-SPLIT-0000.tar of .jpg, .cls and .json."""
    for split in SPLITS:
        rows = list(images.rows(split))
        for shard, start in enumerate(range(0, len(rows), per_shard)):
            files: dict[str, bytes] = {}
            for i, (wnid, name, data) in enumerate(rows[start : start + per_shard]):
                about = {"label": label[wnid], "filename": f"{wnid}/{name}", "class_name": wnid}
                key = f"{start + i:08d}"
                files |= {
                    f"{key}.cls": str(label[wnid]).encode(),
                    f"{key}.jpg": data,
                    f"{key}.json": json.dumps(about).encode(),
                }
            write(root / f"imagenet1k-{split}-{shard:04d}.tar", tar_of(files))
