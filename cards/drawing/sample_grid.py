"""The picture of a release: its classes as rows, the first images of each as columns."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from PIL import Image, ImageDraw

from cards.drawing.picture_names import label_font, shown_name
from release.classes.class_list import ClassEntry
from release.commands.command import run_command
from release.errors import UserError, unknown_name
from release.files.commit import write_atomically
from release.files.storage import ReleasePath, release_path
from release.layout.image_sets import decode, split_files
from release.layout.manifest import Manifest, read_manifest
from release.layout.shard_files import (
    iterate_shard,
    leading_split,
    read_shard,
    readable,
    shard_schema,
)

MAX_CLASSES = 20  # rows of one picture
GROUPS = 10  # pictures of one release
MOST_SHOWN = 100  # images of each class in a picture: about 13,000 pixels side by side
SHOWN = 128  # pixels a side; larger images are shrunk as they are read
CELL = 64  # least side of an image in the picture, in pixels
GAP = 4
READ_ROWS = 256  # encoded images held at a time
INK, PAPER = (40, 40, 40), (255, 255, 255)


def require_shown(per_class: int) -> None:
    """UserError for a number of images of each class that no picture holds."""
    if not 1 <= per_class <= MOST_SHOWN:
        raise UserError(f"--per-class {per_class}: a picture holds 1 to {MOST_SHOWN} of each class")


@dataclass(frozen=True)
class Samples:
    """images: one tuple of uint8[H,W,3] a class, in label order; image_ids: their names.

    per_class: the k asked for, or as many as a class has at most. group: the classes out of which
    `classes` were taken.
    """

    release: str
    dataset: str
    config: str
    split: str
    per_class: int
    classes: tuple[ClassEntry, ...]
    group: tuple[ClassEntry, ...]
    images: tuple[tuple[np.ndarray, ...], ...]
    image_ids: tuple[tuple[str, ...], ...]

    @property
    def caption(self) -> str:
        """How the images were chosen."""
        count = "image" if self.per_class == 1 else f"{self.per_class} images"
        rule = f"The first {count} of each class, not chosen by eye"
        if len(self.classes) == len(self.group):
            return f"{rule}; all {len(self.group)} classes in label order."
        return f"{rule}; {len(self.classes)} of {len(self.group)} classes at equal steps."


def read_samples(
    release: ReleasePath,
    config: str | None = None,
    split: str = "train",
    per_class: int = 10,
    max_classes: int = MAX_CLASSES,
) -> Samples:
    """The first `per_class` images of each class; config None takes the highest resolution.

    Synthetic rows come in the order of `index`, real ones in that of image_id. Classes without
    images are left out. Raises UserError if `release` has no such configuration or split.
    """
    manifest = read_manifest(release)
    config = config or default_config(manifest)
    present = _present(release, manifest, config, split)
    classes = spread(present, max_classes)
    (samples,) = _read(release, manifest, config, split, per_class, [classes])
    return replace(samples, group=manifest.classes)


def read_groups(release: ReleasePath, per_class: int = 10) -> list[Samples]:
    """As read_samples, of the highest resolution's leading split: a picture a class group."""
    manifest = read_manifest(release)
    config = default_config(manifest)
    split = leading_split(manifest.splits()[config])
    present = _present(release, manifest, config, split)
    groups = class_groups(present)
    chosen = [spread(group, MAX_CLASSES) for group in groups]
    found = _read(release, manifest, config, split, per_class, chosen)
    return [replace(s, group=tuple(g)) for s, g in zip(found, groups, strict=True)]


def class_groups(classes: Sequence[ClassEntry]) -> list[Sequence[ClassEntry]]:
    """Runs of labels: all of up to MAX_CLASSES classes, else at most GROUPS of one size."""
    size = max(MAX_CLASSES, -(-len(classes) // GROUPS))
    return [classes[start : start + size] for start in range(0, len(classes), size)]


def _present(release: ReleasePath, manifest: Manifest, config: str, split: str) -> list[ClassEntry]:
    """The classes that have images."""
    counts = manifest.per_class(config, split)
    if not counts:
        known = [f"{c}/{s}" for c, splits in manifest.splits().items() for s in splits]
        raise unknown_name(f"configuration and split of {release}", f"{config}/{split}", known)
    return [c for c in manifest.classes if counts[c.wnid]]


def _read(
    release: ReleasePath,
    manifest: Manifest,
    config: str,
    split: str,
    per_class: int,
    groups: Sequence[Sequence[ClassEntry]],
) -> list[Samples]:
    classes = [entry for group in groups for entry in group]
    chosen = _first_rows(release, config, split, per_class, classes)
    pixels = _read_images([row for rows in chosen.values() for row in rows])
    most = max(map(len, chosen.values()))
    return [
        Samples(
            release=manifest.name,
            dataset=manifest.dataset,
            config=config,
            split=split,
            per_class=most,
            classes=tuple(group),
            group=tuple(group),
            images=tuple(tuple(pixels[i] for _, i in chosen[c.label]) for c in group),
            image_ids=tuple(tuple(i for _, i in chosen[c.label]) for c in group),
        )
        for group in groups
    ]


def default_config(manifest: Manifest) -> str:
    """The highest resolution, as the load contract's default."""
    return max(manifest.splits(), key=lambda name: int(name) if name.isdigit() else 0)


def spread(classes: Sequence[ClassEntry], most: int) -> list[ClassEntry]:
    """At most `most` of `classes`, at equal steps from the first on."""
    if len(classes) <= most:
        return list(classes)
    return [classes[i * len(classes) // most] for i in range(most)]


Row = tuple[ReleasePath, str]  # the file an image is in, and its id


def _first_rows(
    release: ReleasePath, config: str, split: str, per_class: int, classes: Sequence[ClassEntry]
) -> dict[int, list[Row]]:
    """By label, from the small columns of every file."""
    files = split_files(release, config, split)
    with readable(files[0]):
        names = shard_schema(files[0]).names
    order = "index" if "index" in names else "image_id"
    columns = list(dict.fromkeys(["label", "image_id", order]))
    tables = []
    for path in files:
        with readable(path):
            tables.append(read_shard(path, columns))
    places = np.repeat(np.arange(len(files)), [len(table) for table in tables])
    table = pa.concat_tables(tables).append_column("file", pa.array(places))
    table = table.sort_by([(order, "ascending"), ("image_id", "ascending")])
    labels = table["label"].to_numpy()
    found = {}
    for entry in classes:
        rows = table.take(np.flatnonzero(labels == entry.label)[:per_class])
        ids = zip(rows["file"].to_pylist(), rows["image_id"].to_pylist(), strict=True)
        found[entry.label] = [(files[place], image_id) for place, image_id in ids]
    return found


def _read_images(wanted: Sequence[Row]) -> dict[str, np.ndarray]:
    """Decoded images by id, at most SHOWN pixels a side; only files that hold one are read."""
    by_file: dict[ReleasePath, list[str]] = {}
    for path, image_id in wanted:
        by_file.setdefault(path, []).append(image_id)
    found: dict[str, np.ndarray] = {}
    for path, ids in by_file.items():
        with readable(path):
            for batch in iterate_shard(path, ["image_id", "image"], READ_ROWS):
                rows = batch.filter(pc.is_in(batch["image_id"], pa.array(ids, pa.string())))
                for image_id, image in zip(rows["image_id"], rows["image"], strict=True):
                    pixels = _decoded(path, image_id.as_py(), image["bytes"].as_py())
                    found[image_id.as_py()] = _small(pixels)
    return found


def _small(pixels: np.ndarray) -> np.ndarray:
    """At most SHOWN pixels a side."""
    return np.asarray(fit(pixels, SHOWN)) if max(pixels.shape[:2]) > SHOWN else pixels


def _decoded(path: ReleasePath, image_id: str, content: bytes) -> np.ndarray:
    try:
        return decode(content)
    except UserError as error:
        raise UserError(f"{path}, image {image_id}: {error}") from None


def draw_grid(samples: Samples, most: int = SHOWN) -> Image.Image:
    """Labelled picture; tiny images are enlarged by whole factors with nearest neighbour.

    most: pixels a side of an image in the picture, if that is more than CELL.
    """
    font = label_font()
    return draw_rows([shown_name(c, font) for c in samples.classes], samples.images, most)


def draw_rows(
    names: Sequence[str], rows: Sequence[Sequence[np.ndarray]], most: int = SHOWN
) -> Image.Image:
    """The same of rows of images, uint8[H,W,3] each, with a name each."""
    font = label_font()
    side = max(CELL, min(most, max(i.shape[0] for row in rows for i in row)))
    left = int(max(font.getlength(name) for name in names)) + 3 * GAP
    width = left + max(map(len, rows)) * (side + GAP)
    picture = Image.new("RGB", (width, len(names) * (side + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = GAP + number * (side + GAP)
        draw.text((left - 2 * GAP, top + side // 2), name, INK, font, anchor="rm")
        for column, image in enumerate(row):
            tile = fit(image, side)
            offset = (side - tile.width) // 2, (side - tile.height) // 2
            picture.paste(tile, (left + column * (side + GAP) + offset[0], top + offset[1]))
    return picture


def fit(image: np.ndarray, side: int) -> Image.Image:
    """uint8[H,W,3] to at most side x side pixels."""
    picture = Image.fromarray(image)
    factor = side // max(picture.size)
    if factor >= 1:
        size = picture.width * factor, picture.height * factor
        return picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def row_png(row: Sequence[np.ndarray], per_class: int, most: int = 96) -> bytes:
    """One class's images side by side, as they are; larger ones at most `most` pixels a side."""
    tiles = [fit(i, most) if max(i.shape[:2]) > most else Image.fromarray(i) for i in row]
    side = max(max(tile.size) for tile in tiles)
    gap = max(1, side // 16)
    strip = Image.new("RGBA", (per_class * (side + gap) - gap, side))
    for column, tile in enumerate(tiles):
        strip.paste(tile, (column * (side + gap), (side - tile.height) // 2))
    return png_bytes(strip)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as an optimised PNG."""
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def draw_sample_grid(
    release: Annotated[str, typer.Argument(help="folder or URL of a release")],
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    config: Annotated[str | None, typer.Option(help="configuration; default: largest")] = None,
    split: Annotated[str, typer.Option(help="split")] = "train",
    per_class: Annotated[int, typer.Option(help="images of each class")] = 10,
) -> None:
    """Draw the first images of each class of a release as one labelled picture.

    python -m cards.drawing.sample_grid releases/fashion-mnist-32 --out samples.png
    """
    require_shown(per_class)
    samples = read_samples(release_path(release), config, split, per_class)
    write_atomically(out, png_bytes(draw_grid(samples)))
    typer.echo(f"{out}: {samples.caption}", err=True)


if __name__ == "__main__":
    run_command(draw_sample_grid)
