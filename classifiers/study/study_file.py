"""A study as it is asked for: which training sets are compared, with which classifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from release.commands.toml_recipes import load_toml

BUILTIN = Path(__file__).parent / "studies"
TUNING = "tuning"

Positive = Annotated[int, Field(gt=0)]
Times = Annotated[float, Field(gt=0, le=9)]
Budget = Literal["epochs", "steps"]


SIZE, SEED = "{size}", "{seed}"  # in the names of releases and recipes


class Part(BaseModel):
    """A table of a study; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RealSet(Part):
    """Real images. release: imported from `source` if it is not there, at these `views`.

    classes, per_class: how many classes, and training images of each on average: what the cost is
    told by before the release is there; it must be of as many, within 30%. config: by default the
    classifier's resolution.
    """

    release: str
    source: str
    views: tuple[Positive, ...] = ()
    config: str | None = None
    train_split: Literal["train", "fit"] = "train"
    test_split: str = "test"
    classes: Positive
    per_class: Annotated[int | float, Field(gt=0)]

    @model_validator(mode="after")
    def _check(self) -> "RealSet":
        if self.test_split in ("train", "fit", TUNING):
            raise ValueError(
                f"test_split {self.test_split!r} is part of train: report on a split that no "
                "training and no selection sees"
            )
        return self


class GeneratedSet(Part):
    """Generated images. `{size}` in release stands for the size and `{seed}` for the seed of the
    training, for generators of their own.

    config: of the release, by default the classifier's resolution. recipe: builds what is missing,
    `{size}` and `{seed}` in it, too.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    release: str
    config: str | None = None
    recipe: str | None = None

    @property
    def by_seed(self) -> bool:
        """Whether each seed of a study trains on images of its own."""
        return SEED in self.release

    def of(self, size: int | str, seed: int) -> "GeneratedSet":
        """The set that a training of this size and seed sees."""
        return self.model_copy(
            update={
                name: value and value.replace(SIZE, str(size)).replace(SEED, str(seed))
                for name, value in (("release", self.release), ("recipe", self.recipe))
            }
        )


class Model(Part):
    """A classifier recipe with changes to it, such as "epochs=10"."""

    recipe: str
    set: tuple[str, ...] = ()


class Arm(Part):
    """What is trained on.

    times: generated images for each real one. budgets: as many epochs, or as many optimiser steps,
    as the real arm has. "real-repeated" is the control: real images visited as often as real and
    generated ones together. sets, sizes, models: those it is for, by default all.
    """

    kind: Literal["real", "generated", "real+generated", "real-repeated"]
    times: Annotated[tuple[Times, ...], Field(min_length=1)] = (1.0,)
    budgets: Annotated[tuple[Budget, ...], Field(min_length=1)] = ("epochs",)
    sets: tuple[str, ...] = ()
    sizes: tuple[Positive | Literal["all"], ...] = ()
    models: tuple[str, ...] = ()


class Tuning(Part):
    """Changes of which each model takes the best, by the real arm on the tuning split of train.

    At the last of the study's sizes; the choice holds for all of them.
    """

    split: str = TUNING
    candidates: Annotated[tuple[tuple[str, ...], ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _check(self) -> "Tuning":
        if self.split != TUNING:
            raise ValueError(
                f"split {self.split!r} is refused: settings are selected on {TUNING!r}, so that "
                "the reporting split is read once, at the end"
            )
        return self


class Study(Part):
    """What is compared. The first arm is the real one.

    sizes: real images of each class, or "all". epochs: of each size over its real images, by
    default the recipes' own. resolutions: of the classifiers, by default their recipes' own.
    tuning: settings to choose from before, on a part of train. keep_classifiers: each stands beside
    its result, for evaluate-representation and evaluate-robustness.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    description: str = ""
    real: RealSet
    generated: tuple[GeneratedSet, ...] = ()
    models: Annotated[tuple[Model, ...], Field(alias="model", min_length=1)]
    arms: Annotated[tuple[Arm, ...], Field(alias="arm", min_length=1)]
    sizes: tuple[Positive | Literal["all"], ...] = ("all",)
    epochs: Mapping[str, Annotated[float, Field(gt=0)]] = {}
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)
    resolutions: tuple[Positive, ...] = ()
    tuning: Tuning | None = None
    keep_classifiers: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Study":
        if self.arms[0].kind != "real":
            raise ValueError('the first arm must be of kind "real": all others are compared to it')
        if self.arms[0].sizes or self.arms[0].models:
            raise ValueError("the real arm is for all sizes and models: others are compared to it")
        if strange := set(self.epochs) - set(map(str, self.sizes)):
            raise ValueError(
                f"epochs of size {min(strange)!r}; the sizes are {', '.join(map(str, self.sizes))}"
            )
        self._check_lists()
        known = {g.name for g in self.generated}
        for arm in self.arms:
            if unknown := set(arm.sets) - known:
                raise ValueError(
                    f"unknown generated set {min(unknown)!r}; known: {', '.join(sorted(known))}"
                )
            if absent := set(arm.sizes) - set(self.sizes):
                raise ValueError(
                    f"arm {arm.kind!r} is for size {min(map(str, absent))!r}; the sizes are "
                    f"{', '.join(map(str, self.sizes))}"
                )
            if "generated" in arm.kind and not known:
                raise ValueError(f"arm {arm.kind!r} needs a [[generated]] set")
        if self.tuning is not None:
            self._check_tuning(self.tuning)
        return self

    def _check_tuning(self, tuning: Tuning) -> None:
        if self.real.train_split != "fit":
            raise ValueError(
                'with [tuning], real.train_split must be "fit": train without the tuning images'
            )
        if len(self.resolutions) > 1:
            raise ValueError(
                "[tuning] takes one of the resolutions: settings are tuned at one size"
            )
        changes = [change for candidate in tuning.candidates for change in candidate]
        names = [change.partition("=")[0].strip() for change in changes]
        if any(name.split(".")[0] == "teacher" for name in names):
            raise ValueError(
                "[tuning] cannot choose a teacher: settings are chosen by the real arm, which "
                "learns from none"
            )
        if self.epochs and "epochs" in names:
            raise ValueError("[tuning] cannot choose epochs where [epochs] gives them")

    def _check_lists(self) -> None:
        names = [g.name for g in self.generated]
        lists = {"[[generated]] name": names, "sizes": self.sizes, "seeds": self.seeds}
        for what, values in lists.items():
            if double := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{what} {double[0]!r} twice: results go by it, so give it once")
        for size in self.sizes:
            if size != "all" and size > self.real.per_class:
                raise ValueError(
                    f"sizes: {size} is more than real.per_class = {self.real.per_class}; "
                    'all images are "all"'
                )


def load_study(source: str) -> Study:
    """A built-in study by name, or a TOML file; UserError names what is wrong in it."""
    return load_toml(Study, "study", BUILTIN, source)


def needed_per_class(
    study: Study, generated: GeneratedSet, size: int | str, there: float | None = None
) -> int:
    """Images of each class that the arms take of a generated set at one size, at most.

    there: real images of each class, where they can be counted; by default as the study says.
    """
    real = (there or study.real.per_class) if size == "all" else int(size)
    times = [
        max(arm.times)
        for arm in study.arms
        if "generated" in arm.kind
        and (not arm.sets or generated.name in arm.sets)
        and (not arm.sizes or size in arm.sizes)
    ]
    return round(max(times, default=0.0) * real)


def as_record(study: Study) -> dict[str, Any]:
    """The study as JSON."""
    later = set() if study.keep_classifiers else {"keep_classifiers"}  # reports of before stay
    return study.model_dump(mode="json", by_alias=True, exclude=later)
