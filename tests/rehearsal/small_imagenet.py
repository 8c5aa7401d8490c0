"""A miniature ImageNet: all 1000 classes, few and small images of each, odd files among them.

Each class has two colours and stripes of its own, so that a network can learn it; each image its
own phase, noise and size. Odd as ImageNet is: CMYK JPEGs, a PNG called .JPEG, grey ones, broken
EXIF, suffixes in upper case.
"""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from release.classes.class_list import load_classes
from tests.rehearsal.imagenet_layouts import Images
from tests.sets.pictures import write

WNIDS = tuple(entry.wnid for entry in load_classes("imagenet-1k"))
BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\xff\xffcut"


def small_imagenet(per_class: int, val_per_class: int, side: int = 40) -> Images:
    """side: of the shortest images; others are up to twice as long."""
    train = {
        wnid: {
            _name(wnid, label, i): _encode(label, i, side, ODD.get((label, i), _jpeg))
            for i in range(per_class)
        }
        for label, wnid in enumerate(WNIDS)
    }
    chosen = np.random.default_rng(0).permutation(np.arange(1000 * val_per_class) % 1000)
    val = {
        f"ILSVRC2012_val_{n + 1:08d}.JPEG": _encode(label, 10_000 + n, side, _jpeg)
        for n, label in enumerate(chosen.tolist())
    }
    return Images(train, val, [WNIDS[label] for label in chosen])


def _name(wnid: str, label: int, i: int) -> str:
    suffix = ".JPG" if (label, i) == (7, 1) else ".JPEG"
    return f"{wnid}_{17 * i + 3}{suffix}"


def paint(label: int, number: int, side: int) -> np.ndarray:
    """uint8[H,W,3]: stripes of the class's two colours; number: which image of the class."""
    chance = np.random.default_rng((label, number))
    height, width = side + chance.integers(0, side, 2)
    first, second = _colours(label)
    y, x = np.mgrid[:height, :width] / side
    angle, waves = label % 12 * np.pi / 12, 2 + label // 12 % 5
    along = x * np.cos(angle) + y * np.sin(angle)
    share = 0.5 + 0.5 * np.sin(2 * np.pi * (waves * along + chance.random()))[..., None]
    grain = chance.normal(0, 12, (height, width, 1))
    return (share * first + (1 - share) * second + grain).clip(0, 255).astype(np.uint8)


@cache
def _colours(label: int) -> np.ndarray:
    """float[2,3]"""
    return np.random.default_rng((1, label)).integers(20, 236, (2, 3)).astype(float)


Encode = Callable[[Image.Image, io.BytesIO], None]


def _encode(label: int, number: int, side: int, encode: Encode) -> bytes:
    buffer = io.BytesIO()
    encode(Image.fromarray(paint(label, number, side)), buffer)
    return buffer.getvalue()


def _jpeg(image: Image.Image, to: io.BytesIO) -> None:
    image.save(to, "JPEG", quality=85)


def _cmyk(image: Image.Image, to: io.BytesIO) -> None:
    image.convert("CMYK").save(to, "JPEG", quality=85)


def _grey(image: Image.Image, to: io.BytesIO) -> None:
    image.convert("L").save(to, "JPEG", quality=85)


def _png(image: Image.Image, to: io.BytesIO) -> None:
    image.convert("RGBA").save(to, "PNG")


def _broken_exif(image: Image.Image, to: io.BytesIO) -> None:
    image.save(to, "JPEG", quality=85, exif=BROKEN_EXIF)


# By label and number of the image; most in the first classes, which the pictures show.
ODD: dict[tuple[int, int], Encode] = {
    (0, 1): _cmyk,
    (500, 0): _cmyk,
    (1, 1): _png,
    (2, 1): _broken_exif,
    (3, 1): _grey,
}


def litter(folder: Path) -> None:
    """What systems leave beside images."""
    for name in ("train/.DS_Store", "train/n01440764/._n01440764_3.JPEG", "val/Thumbs.db"):
        write(folder / name, b"nothing")
    write(folder / "train/n01440764/.ipynb_checkpoints/n01440764_3.JPEG", b"nothing")
