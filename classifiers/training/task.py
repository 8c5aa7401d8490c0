"""A training as it is asked for: by names and numbers, before any image is read."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from classifiers.data.image_data import read_testing, read_training
from classifiers.data.sources import Source, check_sources, counts_times, open_source
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.experiment import Experiment, Measurement
from generation.networks.timm_classifier import read_classifier
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.files.storage import release_path
from release.results.result import Result
from release.streaming.encoded import EncodedImages, make_room
from release.streaming.image_cache import DEFAULT_CACHE, ImageCache


@dataclass(frozen=True)
class Task:
    """What `train-classifier` is told, but for the seed and where the result goes.

    train, test: RELEASE[:CONFIG[:SPLIT]]. per_class: images of each class and source; with `times`,
    of each real source, and generated ones `times` as many. weights: visits an epoch, one a source.
    steps: in place of the recipe's epochs. start: a saved classifier to go on from. classes: only
    these, comma-separated. teacher: a saved classifier to learn from.
    """

    recipe: ClassifierRecipe
    train: tuple[str, ...]
    test: str
    per_class: int | None = None
    times: float | None = None
    weights: tuple[float, ...] = ()
    steps: int | None = None
    start: Path | None = None
    classes: str | None = None
    teacher: Path | None = None

    def sources(self) -> tuple[tuple[Source, ...], Source]:
        """What it trains on and is tested on; UserError for a pairing that measures nothing."""
        if self.recipe.start is not None and self.start is None:
            raise UserError(
                f"recipe {self.recipe.name} goes on from a classifier of {self.recipe.start}: "
                "give it with --from"
            )
        if self.times is not None and not 0 < self.times < math.inf:
            raise UserError(f"--times {self.times:g}: give a number above 0")
        size = self.recipe.resolution
        train = [
            open_source(spec, size, "train", self.per_class, self.classes) for spec in self.train
        ]
        if self.times is not None:
            if len({source.manifest.kind for source in train}) < 2:
                raise UserError("--times needs real and generated images: give --train for each")
            train = [s if s.manifest.kind == "real" else replace(s, per_class=None) for s in train]
        test = open_source(self.test, size, None, classes=self.classes)
        check_sources(train, test)
        return tuple(train), test

    def recipe_made(self, result: Result) -> bool:
        """Whether the result is of this very recipe, whatever it was trained on."""
        wanted = self.recipe.protocol()
        return {name: result.protocol.get(name) for name in wanted} == wanted

    def identity(self) -> str:
        """Hash of all that decides the outcome with a seed, the releases' contents included."""
        train, test = self.sources()
        content = {
            "protocol": self.recipe.protocol(),
            "recipe": self.recipe.name,
            "train": [_content(source) for source in train],
            "test": _content(test),
            "times": self.times,
            "weights": self.weights or [1.0] * len(train),
            "steps": self.steps,
            "start": None if self.start is None else str(self.start),
        }
        if self.teacher is not None:  # a later setting: identities without one stay
            content["teacher"] = str(self.teacher)
        return sha256_text(canonical_json(content))

    def measurement(self) -> Measurement:
        """What it measures, as the manifests count the images: none is read.

        UserError for too few generated images and for weights by which an epoch sees none of a set.
        """
        train, test = self.sources()
        if self.start is not None and not self.start.is_file():
            raise UserError(f"--from {self.start}: there is no such file")
        self._require_teacher(test.class_ids)
        counts = [source.counts() for source in train]
        if self.times is not None:
            counts = counts_times(train, counts, self.times)
        found = Measurement(
            recipe=self.recipe,
            steps=self.steps,
            train=train,
            train_images=tuple(int(count.sum()) for count in counts),
            test=test,
            test_images=int(test.counts().sum()),
            weights=self.weights,
            start=self.start,
            teacher=self.teacher,
        )
        found.require_visits()
        return found

    def _require_teacher(self, class_ids: tuple[str, ...]) -> None:
        """UserError unless there is one where the recipe learns from one, and it fits."""
        recipe, teacher = self.recipe, self.teacher
        if teacher is None:
            if recipe.teacher is not None:
                raise UserError(f"recipe {recipe.name} learns from a classifier: give --teacher")
            return
        if recipe.teacher is None:
            raise UserError(
                f"--teacher {teacher}: recipe {recipe.name} learns from none; "
                "--set teacher.weight=0.5 has it learn"
            )
        if not teacher.is_file():
            raise UserError(f"--teacher {teacher}: there is no such file")
        about, known = read_classifier(teacher)
        if known != class_ids:
            raise UserError(f"--teacher {teacher} was trained on other classes than --train has")
        for name in ("resolution", "channels", "mean", "std"):
            if getattr(about, name) != getattr(recipe, name):
                raise UserError(
                    f"--teacher {teacher} sees other images than recipe {recipe.name}: "
                    f"{name} {getattr(about, name)}, not {getattr(recipe, name)}"
                )

    def read(
        self, advance: Callable[[int], None] = lambda _: None, cache: ImageCache = DEFAULT_CACHE
    ) -> Experiment:
        """With its images read or found; `advance` gets the number of images just read.

        cache: where images of releases behind a URL are kept.
        """
        planned = self.measurement()
        training, counts = read_training(self.recipe, planned.train, self.times, advance, cache)
        testing = read_testing(self.recipe, planned.test, advance, cache)
        make_room(cache, [s for s in (training, testing) if isinstance(s, EncodedImages)])
        facts = {field.name: getattr(planned, field.name) for field in fields(planned)}
        facts |= {"train_images": counts, "test_images": len(testing)}
        return Experiment(**facts, training=training, testing=testing)


def image_set(release: str, *parts: str | None) -> str:
    """RELEASE[:CONFIG[:SPLIT]], as a task names its images: parts that are None are left out."""
    return ":".join([_absolute(release), *(part for part in parts if part is not None)])


def _absolute(release: str) -> str:
    """As workers that were started in another folder find it, too.

    Below a folder with a colon in its name only the relative path can be told from what follows it.
    """
    path = release_path(release)
    whole = str(path.absolute()) if isinstance(path, Path) else release
    return whole if whole.count(":") == release.count(":") else release


def _content(source: Source) -> list[Any]:
    facts = source.manifest.content_sha256, source.config, source.split, source.per_class
    view = [asdict(source.view)] if source.view else []
    return [*facts, *view, *([source.class_ids] if source.stored else [])]
