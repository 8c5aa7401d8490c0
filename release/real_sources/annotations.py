"""Labels of images that stand in no class folder: ImageNet's validation set, Tiny ImageNet's.

Each form is what its distributor ships: val_annotations.txt (Tiny ImageNet), LOC_val_solution.csv
(Kaggle), the development kit's ground truth with meta.mat (image-net.org).
"""

import csv
import io
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePath

from release.errors import UserError

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
DEVKIT_PLACES = (".", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
FORMS = f"{DEVKIT_ARCHIVE}, val_annotations.txt, LOC_val_solution.csv, or {TRUTH} with {META}"


def find_labels(split: str, images: Sequence[str], places: Sequence[Path]) -> list[str] | None:
    """The wnid of each image of `split`, from the first file of annotations in `places`.

    None where there is none; UserError for images that it does not name, and a broken file.
    """
    for place in places:
        by_name = _read_annotations(split, images, place)
        if by_name is not None:
            return _look_up(split, images, by_name, place)
    return None


def _look_up(split: str, images: Sequence[str], by_name: dict[str, str], place: Path) -> list[str]:
    stems = [PurePath(image).stem for image in images]
    missing = [image for image, stem in zip(images, stems, strict=True) if stem not in by_name]
    if missing:
        raise UserError(
            f"{split}: {len(missing)} of {len(images)} images have no label in the annotations of "
            f"{place}, the first {missing[0]}; label or remove them"
        )
    return [by_name[stem] for stem in stems]


def _read_annotations(split: str, images: Sequence[str], place: Path) -> dict[str, str] | None:
    """wnid by image name without its suffix."""
    tiny = place / f"{split}_annotations.txt"
    if tiny.is_file():
        rows = [line.split("\t") for line in _text(tiny).splitlines() if line]
        return _by_stem(tiny, rows)
    kaggle = place / f"LOC_{split}_solution.csv"
    if kaggle.is_file():
        table = list(csv.reader(io.StringIO(_text(kaggle))))
        return _by_stem(kaggle, [[row[0], *row[1].split()] for row in table[1:] if len(row) > 1])
    numbers = [VALIDATION_IMAGE.fullmatch(PurePath(image).name) for image in images]
    if not any(numbers):
        return None
    wnids = _devkit_truth(place)
    if wnids is None:
        return None
    numbered = [int(m.group(1)) for m in numbers if m is not None]
    return {f"ILSVRC2012_val_{n:08d}": wnids[n - 1] for n in numbered if 0 < n <= len(wnids)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _by_stem(path: Path, rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Each row: an image's name, its wnid, boxes."""
    short = [row for row in rows if len(row) < 2]
    if short:
        raise UserError(f"{path}: the row {short[0]!r} names no class")
    return {PurePath(row[0]).stem: row[1] for row in rows}


def _devkit_truth(place: Path) -> list[str] | None:
    """The wnid of validation image 1, 2, 3 …: the truth has ILSVRC's ids, meta.mat their wnids."""
    truth, meta = _devkit_file(place, TRUTH), _devkit_file(place, META)
    if truth is None or meta is None:
        return None
    from scipy.io import loadmat  # slow to import, and few sources need it

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnids = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
        return [wnids[int(line)] for line in truth.decode("ascii").split()]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: {TRUTH} and {META} do not fit together ({error!r})") from None


def _devkit_file(place: Path, name: str) -> bytes | None:
    for folder in DEVKIT_PLACES:
        if (place / folder / name).is_file():
            return (place / folder / name).read_bytes()
    archive = place / DEVKIT_ARCHIVE
    if not archive.is_file():
        return None
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if PurePath(member.name).name == name and content is not None:
                    return content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:  # EOFError: cut off
        raise UserError(f"{archive} cannot be read: {error}") from None
    return None
