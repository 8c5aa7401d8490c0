"""Reading labelled image sets: releases on disk, real or synthetic, one and the same way.

A release holds, for each configuration ("32": views at 32 pixels; "original": bytes as they came)
and split, files such as `CONFIG/SPLIT-*.parquet`. Real releases mark some rows of `train` as
tuning; the pseudo-splits `fit` (train less tuning) and `tuning` read one part each.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from PIL import Image

from generation.errors import UserError, unknown_name
from generation.shard_files import (
    is_shard,
    read_shard,
    readable,
    require_unchanged,
    shard_schema,
    shard_split,
)
from generation.storage import ReleasePath, list_files, read_text

PSEUDO_SPLITS = {"fit": False, "tuning": True}  # value of the tuning column


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images in the order of their ids.

    images uint8[N,H,W,3]; labels int64[N], indices into class_names; image_ids, class_ids str.
    """

    images: np.ndarray
    labels: np.ndarray
    image_ids: tuple[str, ...]
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of pixels and labels: the same for the same content, whatever file held it."""
        digest = hashlib.sha256(repr((self.images.shape, self.class_ids)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "LabelledImages":
        """Those rows, in that order."""
        ids = tuple(self.image_ids[row] for row in rows)
        return replace(self, images=self.images[rows], labels=self.labels[rows], image_ids=ids)


def split_files(release: ReleasePath, config: str, split: str) -> list[ReleasePath]:
    """The files of one split, sorted; UserError says what there is instead."""
    names = _listed_files(release)
    if not names:
        raise UserError(f"{release} is not a release: no Parquet or Arrow files; see build-dataset")
    configs = {name.split("/")[0] for name in names}
    if config not in configs:
        raise unknown_name(f"configuration of {release}", config, configs)
    splits = {name: shard_split(name) for name in names if name.split("/")[0] == config}
    stored = "train" if split in PSEUDO_SPLITS else split
    files = sorted(name for name, found in splits.items() if found == stored)
    if not files:
        raise unknown_name(f"split of {release / config}", split, set(splits.values()))
    return [release / name for name in files]


def _listed_files(release: ReleasePath) -> dict[str, str | None]:
    """SHA-256 by path within of the files the manifest lists: while a release grows there are more.

    A release being selected from or made by other tools may have no manifest: then all there are.
    """
    try:
        manifest = read_text(release / "manifest.json")
    except (FileNotFoundError, NotADirectoryError):
        return {name: None for name in list_files(release) if is_shard(name)}
    return {shard["path"]: shard["sha256"] for shard in json.loads(manifest)["shards"]}


def unchanged_files(release: ReleasePath, config: str, split: str) -> Iterator[ReleasePath]:
    """As split_files, each once it was found to be the file that the manifest lists.

    What learns from a release or measures it reads it through here, so that no number stands under
    the hash of images it was not made from. UserError names a file that was changed.
    """
    listed = {release / name: sha256 for name, sha256 in _listed_files(release).items()}
    for path in split_files(release, config, split):
        sha256 = listed[path]
        if sha256 is not None:
            require_unchanged(path, sha256)
        yield path


def iterate_tables(
    release: ReleasePath, config: str, split: str, columns: list[str]
) -> Iterator[pa.Table]:
    """One table a file, with `columns`, only the rows of `split`."""
    for path in unchanged_files(release, config, split):
        with readable(path):
            table = _read_part(path, split, columns)
        yield table


def _read_part(path: ReleasePath, split: str, columns: list[str]) -> pa.Table:
    if split not in PSEUDO_SPLITS:
        return read_shard(path, columns)
    if "tuning" not in shard_schema(path).names:
        raise UserError(f"{path} has no tuning rows, so no split {split!r}; use 'train'")
    table = read_shard(path, [*columns, "tuning"])
    wanted = pa.compute.equal(table["tuning"], PSEUDO_SPLITS[split])
    return table.filter(wanted).drop_columns(["tuning"])


def load_images(release: ReleasePath, config: str, split: str) -> LabelledImages:
    """Decode one split of one fixed-resolution configuration into memory.

    Raises UserError, naming the image, if one cannot be decoded, and if their sizes differ.
    """
    columns = ["image", "label", "image_id"]
    table = pa.concat_tables(iterate_tables(release, config, split, columns))
    table = table.sort_by("image_id")
    image_ids = tuple(table["image_id"].to_pylist())
    images = np.empty((len(image_ids), 0, 0, 3), np.uint8)
    for i, (image_id, data) in enumerate(zip(image_ids, _image_bytes(table), strict=True)):
        try:
            pixels = decode(data)
        except UserError as error:
            raise UserError(f"{release}:{config}:{split}, image {image_id}: {error}") from None
        if i == 0:  # room for all at once: a list of them would take as much again
            images = np.empty((len(image_ids), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise UserError(f"{release}:{config}: images of several sizes; name a view of one")
        images[i] = pixels
    schema = shard_schema(split_files(release, config, split)[0])
    ids, names = class_labels(schema)
    return LabelledImages(
        images=images,
        labels=table["label"].to_numpy().astype(np.int64),
        image_ids=image_ids,
        class_ids=ids,
        class_names=names,
    )


def first_of_each(labels: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Rows of at most counts[c] images of each class c, the first ones, in their order."""
    rows = [np.flatnonzero(labels == c)[:count] for c, count in enumerate(counts)]
    return np.sort(np.concatenate(rows))


def decode(data: bytes) -> np.ndarray:
    """Encoded bytes to uint8[H,W,3]; UserError if they are no image."""
    return np.asarray(decode_rgb(data))


def decode_rgb(data: bytes) -> Image.Image:
    """As `decode`, to an image in mode RGB."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow raises the latter for a broken PNG chunk
        raise UserError(f"cannot be decoded: {error}") from None


def class_labels(schema: pa.Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class wnids and names in label order, as the release's schema metadata holds them."""
    classes = json.loads(schema.metadata[b"classes"])
    return tuple(c["wnid"] for c in classes), tuple(c["name"] for c in classes)


def _image_bytes(table: pa.Table) -> list[bytes]:
    return table["image"].combine_chunks().field("bytes").to_pylist()  # type: ignore[no-any-return]
