"""Data specs RELEASE[:CONFIG[:SPLIT]]: what a classifier is trained and tested on, checked."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from classifiers.data.one_by_one import fit_view
from classifiers.recipes.recipe import DEFAULT_VIEW, View
from release.classes.class_list import ClassEntry, class_difference, select_classes
from release.errors import UserError
from release.files.storage import ReleasePath, release_path, split_release
from release.layout.image_sets import (
    LabelledImages,
    first_of_each,
    load_images,
    part_labels,
    split_files,
)
from release.layout.manifest import Manifest, read_manifest
from release.layout.training_views import TrainingView, require_whole, view_of
from release.real_sources.source import PSEUDO_SPLITS
from release.streaming.encoded import EncodedImages, index_images, join_encoded
from release.streaming.image_cache import DEFAULT_CACHE, ImageCache

Images = TypeVar("Images", LabelledImages, EncodedImages)
TRAIN_PARTS = frozenset(PSEUDO_SPLITS)  # fit and tuning together are train


@dataclass(frozen=True)
class Source:
    """One split of one configuration of a release; its images are not read yet.

    per_class: at most so many images of each class, the first by image id; None for all. stored:
    where it takes only some of its release's classes, all of them, in label order.
    """

    path: ReleasePath
    config: str
    split: str
    manifest: Manifest
    per_class: int | None = None
    stored: tuple[ClassEntry, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}:{self.config}:{self.split}"

    @property
    def class_ids(self) -> tuple[str, ...]:
        return tuple(entry.wnid for entry in self.manifest.classes)

    @property
    def view(self) -> TrainingView | None:
        """How its images were derived, if it is a training view."""
        return view_of(self.manifest, self.config)

    @property
    def images(self) -> int:
        """How many the release has of it, before `per_class`; of a part of train, all of train."""
        stored = "train" if self.split in PSEUDO_SPLITS else self.split
        return self.manifest.rows(self.config, stored)

    def counts(self) -> np.ndarray:
        """int64[C]: images of each class that it gives, as its manifest counts them.

        What parts of train hold is known from their labels alone: those are read.
        """
        if self.split in PSEUDO_SPLITS:
            labels = self.own_labels(part_labels(self.path, self.config, self.split))
            counts = np.bincount(labels[labels >= 0], minlength=len(self.class_ids))
        else:
            listed = self.manifest.per_class(self.config, self.split)
            counts = np.array([listed[wnid] for wnid in self.class_ids])
        return counts if self.per_class is None else np.minimum(counts, self.per_class)

    def of_classes(self, wanted: str) -> "Source":
        """Only those of a comma-separated list of wnids or names, in the release's order."""
        chosen = select_classes(self.manifest.classes, wanted)
        classes = tuple(replace(entry, label=label) for label, entry in enumerate(chosen))
        if len(classes) < 2:
            raise UserError(f"--classes {wanted!r}: a classifier needs two classes or more")
        manifest = replace(self.manifest, classes=classes)
        return replace(self, manifest=manifest, stored=self.manifest.classes)

    def own_labels(self, stored: np.ndarray) -> np.ndarray:
        """int64[N] of labels as its files have them: its own, -1 for a class that it leaves out."""
        if not self.stored:
            return stored
        own = {entry.wnid: entry.label for entry in self.manifest.classes}
        labels = np.array([own.get(entry.wnid, -1) for entry in self.stored], np.int64)
        return np.asarray(labels[stored])

    @property
    def parts(self) -> frozenset[str]:
        """The disjoint splits this one is made of."""
        return TRAIN_PARTS if self.split == "train" else frozenset({self.split})


def open_source(
    spec: str,
    resolution: int,
    split: str | None = "train",
    per_class: int | None = None,
    classes: str | None = None,
) -> Source:
    """Read the manifest that `spec` names.

    CONFIG is by default `resolution`, SPLIT is by default `split`; None: test, or validation of a
    release that, as ImageNet's, has no test. classes: only those, see of_classes. UserError for a
    spec of another form, a release that is not finished, a configuration or split it does not have,
    or a training view that lags behind the release.
    """
    name, parts = split_release(spec)
    if len(parts) > 2 or not all((name, *parts)):
        raise UserError(f"{spec!r} is not RELEASE[:CONFIG[:SPLIT]], such as releases/mine:32:train")
    path = release_path(name)
    manifest = read_manifest(path)
    config, split = (*parts, *(str(resolution), split or _held_out(manifest))[len(parts) :])
    split_files(path, config, split)
    require_whole(manifest, config)
    source = Source(path, config, split, manifest, per_class)
    return source if classes is None else source.of_classes(classes)


def _held_out(manifest: Manifest) -> str:
    splits = {split for found in manifest.splits().values() for split in found}
    return "validation" if "validation" in splits and "test" not in splits else "test"


def check_sources(train: Sequence[Source], test: Source) -> None:
    """Raise UserError for a pairing that would not measure what it seems to.

    Refused: class lists that differ; a test set that is not real; real test images that are also
    trained on, whether from the same release or from another import of the same data set.
    """
    if test.manifest.kind != "real":
        raise UserError(f"--test {test} is not real: accuracy is measured on real images")
    for source in train:
        difference = class_difference(source.class_ids, test.class_ids)
        if difference is not None:
            raise UserError(
                f"--train {source} and --test {test} have different class lists: {difference}"
            )
        same = source.manifest.content_sha256 == test.manifest.content_sha256 or (
            source.manifest.kind == "real" and source.manifest.dataset == test.manifest.dataset
        )
        if same and source.parts & test.parts:
            raise UserError(f"--test {test} is also in training, as --train {source}")


def load_source(source: Source, resolution: int, view: View = DEFAULT_VIEW) -> LabelledImages:
    """Decode the images, uint8[N,resolution,resolution,3], in `view` if they have another size.

    UserError for no images, one that cannot be decoded, a size that is not the configuration's, a
    label out of range, or contents that are not what the manifest says.
    """
    data = load_images(source.path, source.config, source.split)
    size = data.images.shape[1:3]
    if len(data) and size != (resolution, resolution):
        if not source.config.isdecimal() or size != (int(source.config),) * 2:
            raise UserError(
                f"{source}: images of {size[1]}x{size[0]}, but the recipe takes "
                f"{resolution}x{resolution}; name that configuration: {source.path}:{resolution}"
            )
        data = replace(data, images=_in_view(data.images, resolution, view))
    return _checked(source, data)


def _in_view(images: np.ndarray, resolution: int, view: View) -> np.ndarray:
    fitted = (fit_view(Image.fromarray(image), resolution, view) for image in images)
    return np.stack([np.asarray(image) for image in fitted])


def index_source(
    source: Source, advance: Callable[[int], None], cache: ImageCache = DEFAULT_CACHE
) -> EncodedImages:
    """The images of `source` where they stand, to be decoded when they are needed.

    UserError as for `load_source`, but for images that cannot be decoded.
    """
    data = index_images(source.path, source.config, source.split, advance, cache)
    return _checked(source, data)


def _checked(source: Source, data: Images) -> Images:
    """As many images of each class as `source` asks for, once all are what they should be."""
    if data.class_ids != tuple(e.wnid for e in source.stored or source.manifest.classes):
        raise UserError(f"{source}: its files and its manifest have different class lists")
    if not len(data):
        raise UserError(f"{source} holds no images")
    stated = source.manifest.rows(source.config, source.split)
    if source.split not in PSEUDO_SPLITS and len(data) != stated:
        raise UserError(f"{source}: {len(data)} images, but its manifest says {stated}")
    wrong = np.flatnonzero((data.labels < 0) | (data.labels >= len(data.class_ids)))
    if len(wrong):
        first = wrong[0]
        raise UserError(
            f"{source}: image {data.image_ids[first]} has label {data.labels[first]}, "
            f"out of range 0 to {len(data.class_ids) - 1}"
        )
    return limited(source, _of_its_classes(source, data))


def _of_its_classes(source: Source, data: Images) -> Images:
    """Only the images of the classes that `source` takes, labelled as there."""
    if not source.stored:
        return data
    labels = source.own_labels(data.labels)
    kept = np.flatnonzero(labels >= 0)
    names = tuple(entry.name for entry in source.manifest.classes)
    return data.take(kept).relabelled(labels[kept], source.class_ids, names)


def limited(source: Source, data: Images) -> Images:
    """`data` with as many images of each class as `source` asks for."""
    if source.per_class is None:
        return data
    return data.take(first_of_each(data.labels, [source.per_class] * len(data.class_ids)))


def take_times(sources: Sequence[Source], parts: Sequence[Images], times: float) -> list[Images]:
    """`parts`, of the generated ones only `times` as many images as are real, by counts_times."""
    classes = len(parts[0].class_ids)
    have = [np.bincount(part.labels, minlength=classes) for part in parts]
    wanted = counts_times(sources, have, times)
    return [
        part
        if source.manifest.kind == "real"
        else part.take(first_of_each(part.labels, counts.tolist()))
        for source, part, counts in zip(sources, parts, wanted, strict=True)
    ]


def counts_times(
    sources: Sequence[Source], have: Sequence[np.ndarray], times: float
) -> list[np.ndarray]:
    """int64[C] a source, of those it has: of generated ones `times` as many images as are real.

    They are as many of each class, also where the real ones are not: as a release has them, and as
    in Azizi et al. 2023. UserError if there are too few.
    """
    real = [source.manifest.kind == "real" for source in sources]
    count = sum(int(own.sum()) for own, is_real in zip(have, real, strict=True) if is_real)
    wanted = max(1, round(times * count / len(have[0])))
    taken = []
    for source, own, is_real in zip(sources, have, real, strict=True):
        if not is_real and (own < wanted).any():
            short = int(np.argmin(own))
            raise UserError(
                f"{source} has {own[short]} images of class {source.class_ids[short]!r}, but "
                f"--times {times:g} takes {wanted}: build more with --per-class"
            )
        taken.append(own if is_real else np.full(len(own), wanted))
    return taken


def join_images(parts: Sequence[Images]) -> Images:
    """All parts one after the other; UserError if a class has no image in any of them."""
    class_ids = parts[0].class_ids
    counts = sum(np.bincount(part.labels, minlength=len(class_ids)) for part in parts)
    assert isinstance(counts, np.ndarray)
    if not counts.all():
        empty = class_ids[int(np.argmin(counts))]
        raise UserError(f"--train has no image of class {empty!r}; build all classes")
    first = parts[0]
    if isinstance(first, EncodedImages):
        return join_encoded(parts)
    return replace(
        first,
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        image_ids=tuple(image_id for part in parts for image_id in part.image_ids),
    )


def describe(source: Source, images: int) -> dict[str, Any]:
    """What a result says of a set it used `images` images of."""
    manifest = source.manifest
    return {
        "name": manifest.name,
        "content_sha256": manifest.content_sha256,
        "config": source.config,
        "split": source.split,
        "per_class": source.per_class,
        "images": images,
        "kind": manifest.kind,
        "regime": manifest.regime,
        **({"derived": asdict(source.view)} if source.view else {}),
        **({"classes": list(source.class_ids)} if source.stored else {}),
    }
