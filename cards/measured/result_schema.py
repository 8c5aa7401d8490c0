"""Result files as the leaderboard reads them: whole, or refused by the field that is wrong."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from classifiers.training.result_values import ClassifierValues, Source
from metrics.evaluations import EVALUATIONS
from metrics.scoring.result_values import ScoredValue
from release.commands.validation import validated
from release.errors import UserError
from release.results.result import Result


class ClassifierSubject(BaseModel):
    """model: timm's name; recipe: the training recipe's name.

    start_sha256: of the classifier that it started from, None if from nothing. teacher_sha256: of
    the one that it learned the answers of, if there was one.
    """

    model_config = ConfigDict(frozen=True)

    train: Annotated[tuple[Source, ...], Field(min_length=1)]
    model: str
    recipe: str
    start_sha256: str | None = None
    teacher_sha256: str | None = None


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


class EvaluatedSystem(BaseModel):
    """A network by what it learned from, as far as that is known."""

    model_config = ConfigDict(frozen=True)

    system: str
    sources: tuple[Source, ...] = ()


class EvaluationResult(BaseModel):
    """A result of one of the open kinds (metrics/evaluations.py)."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    result: Result
    subject: EvaluatedSystem
    values: dict[str, ScoredValue]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The releases it is about."""
        return self.subject.sources


AnyResult = ClassifierResult | ScoresResult | EvaluationResult


def result_models() -> dict[str, type[AnyResult]]:
    """How each kind of result is read."""
    models: dict[str, type[AnyResult]] = {"classifier": ClassifierResult, "scores": ScoresResult}
    models.update(dict.fromkeys(EVALUATIONS, EvaluationResult))
    return models


def parse_result(path: Path, result: Result) -> AnyResult:
    """UserError names the field that is missing or out of range."""
    models = result_models()
    if result.kind not in models:
        raise UserError(
            f"{path}: unknown kind of result {result.kind!r}; known: {', '.join(models)}"
        )
    content: dict[str, Any] = {
        "path": path,
        "result": result,
        "subject": result.subject,
        "values": result.values,
    }
    return validated(models[result.kind], content, str(path))
