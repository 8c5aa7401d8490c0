"""The picture of a release: its classes as rows, the first images of each as columns."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from PIL import Image, ImageDraw, ImageFont

from builder.commit import write_atomically
from builder.manifest import Manifest, read_manifest
from generation.classes import ClassEntry
from generation.command import run_command
from generation.errors import UserError, unknown_name
from generation.image_sets import decode, iterate_tables, split_files
from generation.shard_files import iterate_shard, shard_schema
from generation.storage import ReleasePath, release_path

MAX_CLASSES = 20
CELL = 64  # least side of an image in the picture, in pixels
GAP = 4
READ_ROWS = 256  # encoded images held at a time
FONT_SIZE = 16
INK, PAPER = (40, 40, 40), (255, 255, 255)


@dataclass(frozen=True)
class Samples:
    """images: one tuple of uint8[H,W,3] a class, in label order. per_class: the k asked for."""

    release: str
    dataset: str
    config: str
    split: str
    per_class: int
    classes: tuple[ClassEntry, ...]
    of_classes: int
    images: tuple[tuple[np.ndarray, ...], ...]

    @property
    def caption(self) -> str:
        """How the images were chosen."""
        rule = f"The first {self.per_class} images of each class, not chosen by eye"
        if len(self.classes) == self.of_classes:
            return f"{rule}; all {self.of_classes} classes in label order."
        return f"{rule}; {len(self.classes)} of {self.of_classes} classes at equal steps."


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
    counts = manifest.per_class(config, split)
    if not counts:
        known = [f"{c}/{s}" for c, splits in manifest.splits().items() for s in splits]
        raise unknown_name(f"configuration and split of {release}", f"{config}/{split}", known)
    present = [c for c in manifest.classes if counts[c.wnid]]
    classes = spread(present, max_classes)
    chosen = _first_ids(release, config, split, per_class, classes)
    pixels = _read_images(release, config, split, [i for ids in chosen for i in ids])
    return Samples(
        release=manifest.name,
        dataset=manifest.dataset,
        config=config,
        split=split,
        per_class=per_class,
        classes=tuple(classes),
        of_classes=len(manifest.classes),
        images=tuple(tuple(pixels[i] for i in ids) for ids in chosen),
    )


def default_config(manifest: Manifest) -> str:
    """The highest resolution, as the load contract's default."""
    return max(manifest.splits(), key=lambda name: int(name) if name.isdigit() else 0)


def spread(classes: Sequence[ClassEntry], most: int) -> list[ClassEntry]:
    """At most `most` of `classes`, at equal steps from the first on."""
    if len(classes) <= most:
        return list(classes)
    return [classes[i * len(classes) // most] for i in range(most)]


def _first_ids(
    release: ReleasePath, config: str, split: str, per_class: int, classes: Sequence[ClassEntry]
) -> list[list[str]]:
    names = shard_schema(split_files(release, config, split)[0]).names
    order = "index" if "index" in names else "image_id"
    columns = list(dict.fromkeys(["label", "image_id", order]))
    table = pa.concat_tables(iterate_tables(release, config, split, columns))
    table = table.sort_by([(order, "ascending"), ("image_id", "ascending")])
    labels, ids = table["label"].to_numpy(), table["image_id"].to_numpy(zero_copy_only=False)
    return [ids[labels == c.label][:per_class].tolist() for c in classes]


def _read_images(
    release: ReleasePath, config: str, split: str, wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """Decoded images by id; files are read one after the other, only rows that are wanted."""
    found: dict[str, np.ndarray] = {}
    for path in split_files(release, config, split):
        for batch in iterate_shard(path, ["image_id", "image"], READ_ROWS):
            rows = batch.filter(pc.is_in(batch["image_id"], pa.array(wanted, pa.string())))
            for image_id, image in zip(rows["image_id"], rows["image"], strict=True):
                found[image_id.as_py()] = decode(image["bytes"].as_py())
    return found


def draw_grid(samples: Samples) -> Image.Image:
    """Labelled picture; tiny images are enlarged by whole factors with nearest neighbour."""
    font = ImageFont.load_default(FONT_SIZE)
    names = [c.name for c in samples.classes]
    side = max(CELL, min(128, max(i.shape[0] for row in samples.images for i in row)))
    left = int(max(font.getlength(name) for name in names)) + 3 * GAP
    width = left + samples.per_class * (side + GAP)
    picture = Image.new("RGB", (width, len(names) * (side + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (name, row) in enumerate(zip(names, samples.images, strict=True)):
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

    python -m cards.sample_grid releases/fashion-mnist-32 --out samples.png
    """
    if per_class < 1:
        raise UserError(f"--per-class must be at least 1, not {per_class}")
    samples = read_samples(release_path(release), config, split, per_class)
    write_atomically(out, png_bytes(draw_grid(samples)))
    typer.echo(f"{out}: {samples.caption}", err=True)


if __name__ == "__main__":
    run_command(draw_sample_grid)
