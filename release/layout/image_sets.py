"""Reading labelled image sets: releases on disk, real or synthetic, one and the same way.

A release holds, for each configuration ("32": views at 32 pixels; "original": bytes as they came)
and split, files such as `CONFIG/SPLIT-*.parquet`. Real releases mark some rows of `train` as
tuning; the pseudo-splits `fit` (train less tuning) and `tuning` read one part each.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from release.commands.named_files import no_folder
from release.errors import UserError, unknown_name
from release.files.storage import ReleasePath, list_files, read_text
from release.images.decoding import decode_rgb
from release.layout.byte_ranges import on_this_machine
from release.layout.image_index import index_name, open_index
from release.layout.shard_files import (
    FileState,
    file_state,
    is_shard,
    plain_shard_path,
    read_shard,
    readable,
    shard_schema,
    shard_split,
)
from release.real_sources.source import PSEUDO_SPLITS

HASHED_AT_ONCE = 256  # encoded images that wait for the threads which decode and hash them


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

    def relabelled(
        self, labels: np.ndarray, class_ids: tuple[str, ...], class_names: tuple[str, ...]
    ) -> "LabelledImages":
        """The same images with labels int64[N] of other classes."""
        return replace(self, labels=labels, class_ids=class_ids, class_names=class_names)


def split_files(release: ReleasePath, config: str, split: str) -> list[ReleasePath]:
    """The files of one split, sorted; UserError says what there is instead."""
    return [release / name for name in _split_names(release, config, split)]


def _split_names(release: ReleasePath, config: str, split: str) -> list[str]:
    names = _listed_files(release)
    if not names:
        reason = no_folder(release) or "no Parquet or Arrow files; see build-dataset"
        raise UserError(f"{release} is not a release: {reason}")
    configs = {name.split("/")[0] for name in names}
    if config not in configs:
        raise unknown_name(f"configuration of {release}", config, configs)
    splits = {name: shard_split(name) for name in names if name.split("/")[0] == config}
    stored = "train" if split in PSEUDO_SPLITS else split
    files = sorted(name for name, found in splits.items() if found == stored)
    if not files:
        raise unknown_name(f"split of {release / config}", split, set(splits.values()))
    return files


@dataclass(frozen=True)
class _Listing:
    """What a manifest lists: SHA-256 and size of each shard, SHA-256 of each document; and what it
    says of latents, None of a release of images."""

    files: dict[str, str | None]
    sizes: dict[str, int]
    documents: dict[str, str]
    latents: Any = None


def _listed_files(release: ReleasePath) -> dict[str, str | None]:
    """SHA-256 by path within of the files the manifest lists: while a release grows there are more.

    A release being selected from or made by other tools may have no manifest: then all there are.
    """
    return _listing(release).files


def _listing(release: ReleasePath) -> _Listing:
    path = release / "manifest.json"
    try:
        if isinstance(path, Path):
            return _read_in_state(path, file_state(path))
        return _read_listing(path)
    except (FileNotFoundError, NotADirectoryError):
        found = {name: size for name, size in list_files(release).items() if is_shard(name)}
        return _Listing(dict.fromkeys(found), found, {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


@lru_cache(maxsize=8)  # millions of images make a manifest of 100 MB
def _read_in_state(path: Path, state: FileState) -> _Listing:  # noqa: ARG001
    return _read_listing(path)


def _read_listing(path: ReleasePath) -> _Listing:
    content = json.loads(read_text(path))
    shards = content["shards"]
    return _Listing(
        files={plain_shard_path(shard["path"]): shard["sha256"] for shard in shards},
        sizes={shard["path"]: shard["bytes"] for shard in shards},
        documents=dict(content.get("documents", {})),
        latents=content.get("origin", {}).get("latents"),
    )


def stated_latents(release: ReleasePath) -> Any:
    """What the manifest says of latents (release/layout/latents.py); None for images."""
    return _listing(release).latents


def noted_index(release: ReleasePath, config: str, split: str) -> tuple[str, str] | None:
    """Path within the release and SHA-256 of the index of the split's images, if there is one.

    Of the split as it is stored: that of `fit` and `tuning` is train's.
    """
    listing = _listing(release)
    files = [(name, str(sha256)) for name, sha256 in listed_files(release, config, split)]
    name = index_name(config, shard_split(files[0][0]), files)
    return (name, listing.documents[name]) if name in listing.documents else None


def split_index(release: ReleasePath, config: str, split: str) -> pa.Table | None:
    """The rows of that index, `split` as it is stored; UserError if it is not what was noted."""
    noted = noted_index(release, config, split)
    if noted is None:
        return None
    with on_this_machine(release, *noted) as path:
        return open_index(path)  # what is mapped outlives the file's name


def of_part(rows: pa.Table, split: str, path: ReleasePath) -> pa.Table:
    """The rows of an index that belong to `split`; UserError names `path` if none can."""
    import pyarrow.compute as pc  # not where commands start: it takes a while

    if split not in PSEUDO_SPLITS:
        return rows
    if "tuning" not in rows.column_names:
        raise UserError(f"{path} has no column 'tuning', so no split {split!r}")
    return rows.filter(pc.equal(rows["tuning"], PSEUDO_SPLITS[split])).combine_chunks()


def require_listed_sizes(release: ReleasePath, config: str, split: str) -> None:
    """UserError unless each file of the split is there and has the size the manifest says."""
    wanted, sizes = _listing(release).sizes, list_files(release / config)
    for name in _split_names(release, config, split):
        path = release / name
        found = sizes.get(name.removeprefix(f"{config}/"))
        if found is None:
            raise UserError(f"{path} is not there, though its manifest lists it")
        if found != wanted[name]:
            raise UserError(
                f"{path} is not the file that its manifest lists: its size is another; "
                "`release verify` names all that was changed"
            )


def listed_files(release: ReleasePath, config: str, split: str) -> list[tuple[str, str | None]]:
    """As split_files, the path of each within the release and the SHA-256 its manifest states.

    What learns from a release or measures it compares the two before it reads, so that no number
    stands under the hash of images it was not made from.
    """
    sha256 = _listed_files(release)
    return [(name, sha256[name]) for name in _split_names(release, config, split)]


def iterate_tables(
    release: ReleasePath, config: str, split: str, columns: list[str]
) -> Iterator[pa.Table]:
    """One table a file, with `columns`, only the rows of `split`.

    Each file is compared with the manifest first; one behind a URL is copied here as it is read.
    UserError for the images of a set of latents.
    """
    if "image" in columns and stated_latents(release) is not None:
        raise UserError(f"{release} holds latents, no images: name the release of their images")
    for name, sha256 in listed_files(release, config, split):
        with on_this_machine(release, name, sha256) as file, readable(release / name):
            table = _read_part(file, release / name, split, columns)
        yield table


def part_labels(release: ReleasePath, config: str, split: str) -> np.ndarray:
    """int64[N]: labels of the rows of `split`, in no order that means anything.

    Of files behind a URL these columns alone are read. For plans: what learns from the images
    compares their files with the manifest.
    """
    if not isinstance(release, Path):
        paths = split_files(release, config, split)
        tables = [_read_part(path, path, split, ["label"]) for path in paths]
    elif (index := split_index(release, config, split)) is not None:
        tables = [of_part(index, split, release / config)]
    else:
        tables = list(iterate_tables(release, config, split, ["label"]))
    return np.concatenate([table["label"].to_numpy() for table in tables])


def _read_part(file: ReleasePath, path: ReleasePath, split: str, columns: list[str]) -> pa.Table:
    """Of `file`, which is the one at `path`."""
    import pyarrow.compute as pc

    if split not in PSEUDO_SPLITS:
        return read_shard(file, columns)
    if "tuning" not in shard_schema(file).names:
        raise UserError(f"{path} has no tuning rows, so no split {split!r}; use 'train'")
    table = read_shard(file, [*columns, "tuning"])
    wanted = pc.equal(table["tuning"], PSEUDO_SPLITS[split])
    return table.filter(wanted).drop_columns(["tuning"])


def load_images(release: ReleasePath, config: str, split: str) -> LabelledImages:
    """Decode one split of one fixed-resolution configuration into memory.

    File by file, each image to its place: the encoded bytes of a split may be more than Arrow
    holds in one array (2 GiB). Raises UserError, naming the image, if one cannot be decoded, and if
    their sizes differ.
    """
    import pyarrow.compute as pc

    rows = pa.concat_tables(iterate_tables(release, config, split, ["label", "image_id"]))
    order = pc.sort_indices(rows["image_id"])
    image_ids = tuple(rows["image_id"].take(order).to_pylist())
    places = np.empty(len(order), np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    images = np.empty((len(order), 0, 0, 3), np.uint8)
    for i, data in enumerate(_iterate_bytes(release, config, split)):
        place = places[i]
        try:
            pixels = decode(data)
        except UserError as error:
            image = f"{release}:{config}:{split}, image {image_ids[place]}"
            raise UserError(f"{image}: {error}") from None
        side = int(config) if config.isdecimal() else 0
        if side and max(pixels.shape[:2]) > side:  # before there is room for all
            raise UserError(
                f"{release}:{config}:{split}, image {image_ids[place]}: is {pixels.shape[1]} x "
                f"{pixels.shape[0]}, larger than its configuration says"
            )
        if i == 0:  # room for all at once: a list of them would take as much again
            images = np.empty((len(order), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise UserError(f"{release}:{config}: images of several sizes; name a view of one")
        images[place] = pixels
    schema = shard_schema(split_files(release, config, split)[0])
    ids, names = class_labels(schema)
    return LabelledImages(
        images=images,
        labels=rows["label"].to_numpy().astype(np.int64)[order.to_numpy()],
        image_ids=image_ids,
        class_ids=ids,
        class_names=names,
    )


def first_of_each(labels: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Rows of at most counts[c] images of each class c, the first ones, in their order."""
    order = np.argsort(labels, kind="stable")
    have = np.bincount(labels, minlength=len(counts))
    place = np.arange(len(order)) - np.repeat(np.cumsum(have) - have, have)  # within its class
    return np.sort(order[place < np.repeat(counts, have)])


def decode(data: bytes) -> np.ndarray:
    """Encoded bytes to uint8[H,W,3]; UserError if they are no image."""
    return np.asarray(decode_rgb(data))


def pixels_sha256(image: np.ndarray) -> bytes:
    """32 bytes of uint8[H,W,3] and its size: the same however the image was encoded."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def images_sha256(image_hashes: Iterable[bytes], class_ids: Iterable[str]) -> str:
    """Identity of a labelled set of images: a hash over theirs and the ids of their classes.

    In any order and of any names, so it is the same however the images lie in files, which other
    splits and views stand beside them, and on whichever machine they were imported.
    """
    images = sorted(zip(image_hashes, class_ids, strict=True))
    digest = hashlib.sha256()
    for image, class_id in images:
        digest.update(image + hashlib.sha256(class_id.encode()).digest())
    return digest.hexdigest()


def split_sha256(
    release: ReleasePath,
    config: str,
    split: str,
    threads: int | None = None,
    only: Collection[str] | None = None,
) -> str:
    """images_sha256 of one split as its files hold it; `threads` decode, by default one a core.

    only: the wnids of the classes whose images are taken, by default all. One pass, of which 32
    bytes an image and one file are in memory. UserError as for load_images.
    """
    import pyarrow.compute as pc

    class_ids, _ = class_labels(shard_schema(split_files(release, config, split)[0]))
    hashes: list[bytes] = []
    labels: list[str] = []
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        wanted = pa.array([i for i, wnid in enumerate(class_ids) if only is None or wnid in only])
        for table in iterate_tables(release, config, split, ["image", "label"]):
            own = table.filter(pc.is_in(table["label"], wanted.cast(table["label"].type)))
            for batch in own.to_batches(HASHED_AT_ONCE):
                encoded = (data.as_py() for data in pc.struct_field(batch["image"], "bytes"))
                hashes += pool.map(lambda data: pixels_sha256(decode(data)), encoded)
                labels += (class_ids[label] for label in batch["label"].to_pylist())
    return images_sha256(hashes, labels)


def class_labels(schema: pa.Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class wnids and names in label order, as the release's schema metadata holds them."""
    classes = json.loads(schema.metadata[b"classes"])
    return tuple(c["wnid"] for c in classes), tuple(c["name"] for c in classes)


def _iterate_bytes(release: ReleasePath, config: str, split: str) -> Iterator[bytes]:
    """The encoded images in the order of the files."""
    import pyarrow.compute as pc

    for table in iterate_tables(release, config, split, ["image"]):
        for chunk in table["image"].chunks:
            for data in pc.struct_field(chunk, "bytes"):
                yield data.as_py()
