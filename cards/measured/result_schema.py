"""What the leaderboard needs of a result file, checked where it is read."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from release.commands.validation import validated
from release.errors import UserError
from release.results.result import Result
from release.results.values import Share, Value


class Source(BaseModel):
    """One split of one release: what was scored, or a part of what a classifier learned from.

    weight: how often an epoch visited its images.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    content_sha256: str
    config: str
    split: str
    images: int
    kind: str
    regime: str | None = None
    weight: float = 1.0


class ClassifierSubject(BaseModel):
    """model: timm's name; recipe: the training recipe's name."""

    model_config = ConfigDict(frozen=True)

    train: Annotated[tuple[Source, ...], Field(min_length=1)]
    model: str
    recipe: str


class Accuracy(Value):
    """A share in [0, 1] of n test images."""

    value: Share
    n: int


class ClassAccuracy(BaseModel):
    """Top-1 within one class."""

    model_config = ConfigDict(frozen=True)

    wnid: str
    name: str
    n: int
    top1: Share


class ClassifierValues(BaseModel):
    """top5 and per_class may be missing: a set of two classes has no top-5.

    predictions_sha256: of the file beside the result; test_images_sha256: of the test images by
    their pixels and classes (images_sha256). Results of before do not say them.
    """

    model_config = ConfigDict(frozen=True)

    top1: Accuracy
    top5: Accuracy | None = None
    per_class: tuple[ClassAccuracy, ...] = ()
    predictions_sha256: str | None = None
    test_images_sha256: str | None = None


class ClassifierResult(BaseModel):
    """A "classifier" result: accuracy on real test images.

    checked: whether it was compared with the predictions beside it.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    result: Result
    subject: ClassifierSubject
    values: ClassifierValues
    checked: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """The releases it is about."""
        return self.subject.train


class ClassValue(Value):
    """A score within one class."""

    wnid: str
    name: str
    n: int


class Pair(BaseModel):
    """A generated image and the training image that lies nearest to it, by their ids."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    image: str
    nearest: str
    distance: float


class ScoredValue(Value):
    """per_class: the score within each class, where the metric gives it. better: what is, if said.

    Of near copies: pairs, the closest ones; expected, the share an honest generator has.
    """

    better: Literal["higher", "lower"] | None = None

    per_class: tuple[ClassValue, ...] = ()
    pairs: tuple[Pair, ...] = ()
    expected: float | None = None


class ScoresResult(BaseModel):
    """A "scores" result: distances and Inception Score on one extractor's features."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    result: Result
    subject: Source
    values: dict[str, ScoredValue]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The releases it is about."""
        return (self.subject,)


AnyResult = ClassifierResult | ScoresResult


def parse_result(path: Path, result: Result) -> AnyResult:
    """UserError names the field that is missing or out of range."""
    model: type[AnyResult]
    if result.kind == "classifier":
        model = ClassifierResult
    elif result.kind == "scores":
        model = ScoresResult
    else:
        raise UserError(
            f"{path}: unknown kind of result {result.kind!r}; known: classifier, scores"
        )
    content: dict[str, Any] = {
        "path": path,
        "result": result,
        "subject": result.subject,
        "values": result.values,
    }
    return validated(model, content, str(path))
