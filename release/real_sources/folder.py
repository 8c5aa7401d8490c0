"""Folders of image files: SPLIT/CLASS/image and what ImageNet's distributors make of it."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from release.errors import UserError
from release.real_sources.annotations import FORMS, find_labels
from release.real_sources.class_names import classes_of
from release.real_sources.files import (
    image_suffixes,
    list_folder,
    only_images,
    suffix,
    suffix_counts,
)
from release.real_sources.source import (
    SPLIT_NAMES,
    SPLITS,
    RealSource,
    file_version,
    first_few,
    named_splits,
)

# Below what a person calls the ImageNet folder.
DATA_FOLDERS = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
TRAIN = "train"  # what an undivided folder is
IMAGES = "images"  # Tiny ImageNet: WNID/images/, val/images/
LAYOUTS = (
    "SPLIT/CLASS/image, CLASS/image with --test-share, ImageNet's archives, Parquet, Arrow, "
    "WebDataset"
)
LOOKED_INTO = 10_000  # folders, for images that stand in no layout


@dataclass(frozen=True)
class FolderSplit:
    """Image files below one folder. paths: relative to it, as text: a Path takes much memory."""

    folder: Path
    paths: Sequence[str]
    class_names: Sequence[str]
    labels: Sequence[int]

    def key(self, i: int) -> str:
        return f"{self.class_names[self.labels[i]]}/{self.paths[i].rpartition('/')[2]}"

    def version(self, i: int) -> str:
        return file_version(self.folder / self.paths[i])

    def read(self, i: int) -> bytes:
        return (self.folder / self.paths[i]).read_bytes()


@dataclass
class FoundFiles:
    """What stands below a split's folder: images of each class, images of no class, the rest."""

    by_class: dict[str, list[str]] = field(default_factory=dict)
    flat: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """Those of a class."""
        return sum(map(len, self.by_class.values()))


def read_folder(root: Path, *, unsplit: bool = False) -> RealSource:
    """UserError for a folder in none of LAYOUTS, and for one without images.

    unsplit: CLASS/image will do, too; it becomes the split train.
    """
    base = next((root / name for name in DATA_FOLDERS if (root / name).is_dir()), root)
    found, passed = {}, Counter[str]()
    unlabelled, empty = dict[str, int](), list[str]()
    for name in list_folder(base)[0]:
        files = _label_flat(root, base / name, _scan_split(base / name))
        passed += files.passed
        if files.images:
            found[name] = files.by_class
        elif files.flat:
            unlabelled[name] = len(files.flat)
        else:
            empty.append(name)
    if unsplit and not found and unlabelled:
        whole = _scan_split(root)
        remarks = _left_out({}, empty, whole.passed)
        return _source(root, {TRAIN: root}, {TRAIN: whole.by_class}, remarks)
    remarks = _left_out(unlabelled, empty, passed)
    if not found:
        raise _nothing_found(root, unlabelled, passed, unsplit=unsplit)
    if not _known_splits(found):
        remarks.append(
            f"taken for splits: {first_few(list(found))}; if the folders in one are classes, name "
            "that one, with --test-share 0.2"
        )
    return _source(root, {name: base / name for name in found}, found, remarks)


def _left_out(
    unlabelled: Mapping[str, int], empty: Sequence[str], passed: Counter[str]
) -> list[str]:
    remarks = []
    if unlabelled:
        remarks.append(
            f"without labels, left out: {sum(unlabelled.values()):,} images in "
            f"{first_few(list(unlabelled))} (labels are read from class folders, {FORMS})"
        )
    if empty:
        remarks.append(f"holds no images, left out: {first_few(empty)}")
    if passed:
        remarks.append(
            f"not taken: {suffix_counts(passed)}; images are {' '.join(sorted(image_suffixes()))}"
        )
    return remarks


def _source(
    root: Path,
    folders: Mapping[str, Path],
    found: Mapping[str, Mapping[str, list[str]]],
    remarks: list[str],
) -> RealSource:
    classes, more = classes_of(found)
    names = [entry.name for entry in classes]
    splits = {}
    for split, by_class in found.items():
        paths = [path for name in names for path in by_class.get(name, ())]
        labels = [i for i, name in enumerate(names) for _ in by_class.get(name, ())]
        splits[split] = FolderSplit(folders[split], paths, names, labels)
    return RealSource(
        root.resolve().name, "unknown", classes, named_splits(splits), remarks=(*remarks, *more)
    )


def _scan_split(folder: Path) -> FoundFiles:
    folders, files = list_folder(folder)
    found = FoundFiles()
    found.flat = only_images(files, found.passed)
    if folders == [IMAGES]:
        below, inner = list_folder(folder / IMAGES)
        if not below:
            found.flat += [f"{IMAGES}/{name}" for name in only_images(inner, found.passed)]
            return found
    for name in folders:
        found.by_class[name] = _class_images(folder, name, found.passed)
    if found.images:
        found.passed.update(f"{suffix(name)} in no class folder" for name in found.flat)
        found.flat = []
    return found


def _class_images(split: Path, name: str, passed: Counter[str]) -> list[str]:
    folders, files = list_folder(split / name)
    images = [f"{name}/{file}" for file in only_images(files, passed)]
    if not images and IMAGES in folders:
        folders.remove(IMAGES)
        below, files = list_folder(split / name / IMAGES)
        images = [f"{name}/{IMAGES}/{file}" for file in only_images(files, passed)]
        folders += below
    if folders:
        passed["folders in class folders"] += len(folders)
    return images


def _label_flat(root: Path, split: Path, found: FoundFiles) -> FoundFiles:
    """`found` with its flat images by class, where annotations beside or above them say so."""
    if not found.flat:
        return found
    above = [split, *split.parents]
    wnids = find_labels(split.name, found.flat, above[: above.index(root) + 1])
    if wnids is None:
        return found
    by_class: dict[str, list[str]] = {}
    for wnid, image in zip(wnids, found.flat, strict=True):
        by_class.setdefault(wnid, []).append(image)
    return FoundFiles(by_class, [], found.passed)


def _nothing_found(
    root: Path, unlabelled: Mapping[str, int], passed: Counter[str], *, unsplit: bool
) -> UserError:
    """What is wrong with the folder, then what to do about it, then what is read."""
    if unlabelled:
        wrong, cure = _without_labels(root, unlabelled)
    elif own := len(only_images(list_folder(root)[1], Counter())):
        wrong = f"{own:,} images in no class folder"
        cure = "put those of each class into a folder of its own, and name the folder above these"
    elif deep := _classes_below(root):
        divided = bool(_known_splits([deep.name]))
        share = "" if unsplit or divided else ", with --test-share 0.2"
        wrong = f"its class folders stand deeper, in {deep}"
        cure = f"name {deep.parent if divided else 'that folder'}{share}"
    else:
        files = Counter({end: n for end, n in passed.items() if end.startswith(".")})
        wrong = f"no images{f', but {suffix_counts(files)}' if files else ''}"
        cure = (
            f"images are {' '.join(sorted(image_suffixes()))}"
            if files
            else "name the folder that has them"
        )
    return UserError(f"{root}: {wrong}: {cure} (read: {LAYOUTS})")


def _without_labels(root: Path, unlabelled: Mapping[str, int]) -> tuple[str, str]:
    """What is wrong with images right below these folders, and the cure."""
    found = f"{sum(unlabelled.values()):,} images in {first_few(list(unlabelled))} have no"
    if len(_known_splits(unlabelled)) == len(unlabelled):
        return f"{found} class", f"put them into class folders, or beside them {FORMS}"
    return (
        f"{found} split above their class",
        f"--test-share 0.2 makes a fifth of each class the test split, or put them into "
        f"{root}/train/ and {root}/test/",
    )


def _known_splits(names: Iterable[str]) -> list[str]:
    return [name for name in names if SPLIT_NAMES.get(name, name) in SPLITS]


def _classes_below(root: Path) -> Path | None:
    """The folder nearest to `root` whose folders hold images, among the first LOOKED_INTO."""
    waiting = deque([root])
    for _ in range(LOOKED_INTO):
        if not waiting:
            break
        folder = waiting.popleft()
        with suppress(UserError):  # one that cannot be read is not what is looked for
            folders, files = list_folder(folder)
            if only_images(files, Counter()):
                return folder.parent
            waiting.extend(folder / name for name in folders)
    return None
