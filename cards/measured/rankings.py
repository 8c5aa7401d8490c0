"""From result files to rankings: runs of one measurement averaged over seeds, like with like.

Two results may be ranked together only if they agree in everything but the subject: data set,
model, recipe, protocol, reference; for distances also the number of images, since a Fréchet
distance falls as n grows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Generic, TypeVar

from cards.measured.predictions_check import predictions_beside
from cards.measured.recipe_titles import recipe_title
from cards.measured.result_schema import (
    AnyResult,
    ClassifierResult,
    EvaluationResult,
    ScoresResult,
)
from cards.measured.settings import Settings, flatten
from classifiers.training.result_values import Source
from metrics.scoring.comparability import (
    reference_of,
    require_comparable,
    tested_images,
    value_settings,
)
from metrics.scoring.result_values import ClassValue, ScoredValue
from release.errors import UserError
from release.files.commit import canonical_json, sha256_text
from release.results.result import Result
from release.results.values import Value

T = TypeVar("T")
R = TypeVar("R", ClassifierResult, ScoresResult, EvaluationResult)
Valued = ScoresResult | EvaluationResult


@dataclass(frozen=True)
class Score:
    """A number over runs. by_seeds: each run's, by the seeds it had, spelled as canonical JSON.

    std is None for one run; interval is that of a single run.
    """

    by_seeds: dict[str, float]
    n: int | None
    interval: tuple[float, float] | None

    @property
    def seeds(self) -> int:
        return len(self.by_seeds)

    @property
    def mean(self) -> float:
        return fmean(self.by_seeds.values())

    @property
    def std(self) -> float | None:
        return stdev(self.by_seeds.values()) if self.seeds > 1 else None


@dataclass(frozen=True)
class ClassScore:
    """Accuracy within one class: mean over seeds of a share of the same n test images."""

    wnid: str
    name: str
    n: int
    top1: float


@dataclass(frozen=True)
class Training:
    """What classifiers learned from, and how well they did on the real test images.

    arm: "real", "generated" or "real + generated". is_cas: whether its accuracy is the CAS of
    generated images, of classifiers that nothing else helped. checked: how many of its runs were
    compared with the predictions beside them.
    """

    sources: tuple[Source, ...]
    scores: dict[str, Score]
    per_class: tuple[ClassScore, ...]
    files: tuple[Path, ...]
    checked: int
    is_cas: bool

    @property
    def arm(self) -> str:
        return arm_of(self.sources)

    @property
    def images(self) -> int:
        return sum(source.images for source in self.sources)

    @property
    def predictions(self) -> dict[str, Path]:
        """Where those of each run stand if they were kept, by its seeds as in a score."""
        return dict(
            zip(self.scores["top1"].by_seeds, map(predictions_beside, self.files), strict=True)
        )


def arm_of(sources: Sequence[Source]) -> str:
    """ "real", "generated", "real + generated"."""
    kinds = {source.kind for source in sources}
    if kinds == {"real"}:
        return "real"
    return "generated" if "real" not in kinds else "real + generated"


@dataclass(frozen=True)
class Evaluated:
    """A network with its values of one open kind; sources: what it learned from, where known."""

    system: str
    sources: tuple[Source, ...]
    scores: dict[str, Score]
    values: dict[str, ScoredValue]
    files: tuple[Path, ...]

    @property
    def arm(self) -> str:
        """ "" where nothing is known."""
        return arm_of(self.sources) if self.sources else ""


@dataclass(frozen=True)
class Scored:
    """One split of one release with its distances and Inception Score, by key of the result.

    per_class: of the values that were taken within each class too. values: as the first run has
    them, with what a score leaves out.
    """

    source: Source
    scores: dict[str, Score]
    per_class: dict[str, tuple[ClassValue, ...]]
    values: dict[str, ScoredValue]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Ranking(Generic[T]):
    """Rows that may be ranked together. settings: all they share, flat; one ranking, one key.

    reference: what all were tested on or compared with; protocol_sha256: of the settings. recipe:
    of the classifiers, for people: its name and what was set otherwise.
    """

    dataset: str
    settings: Settings
    rows: tuple[T, ...]
    reference: dict[str, Any]
    protocol_sha256: str
    recipe: str = ""

    @property
    def key(self) -> str:
        return sha256_text(canonical_json([self.dataset, self.settings]))


def classifier_rankings(results: Iterable[AnyResult]) -> list[Ranking[Training]]:
    """Raises UserError if one run of one measurement stands in two files."""
    chosen = [r for r in results if isinstance(r, ClassifierResult)]
    tested = tested_images(r.result for r in chosen)
    found = _rankings(chosen, lambda r: _classifier_settings(r, tested), _training_key, _training)
    return [replace(ranking, recipe=_recipe(ranking, found)) for ranking in found]


def _recipe(ranking: Ranking[Training], others: Iterable[Ranking[Training]]) -> str:
    name = ranking.settings["recipe"]
    namesakes = [o.settings for o in others if o.settings["recipe"] == name]
    return recipe_title(name, ranking.settings, namesakes)


def score_rankings(results: Iterable[AnyResult]) -> list[Ranking[Scored]]:
    """Raises UserError if one measurement stands in two files."""
    chosen = [r for r in results if isinstance(r, ScoresResult)]
    varied = _varied_values(chosen)
    return _rankings(
        chosen,
        lambda r: _score_settings(r, varied),
        lambda r: r.subject.model_dump_json(),
        _scored,
    )


def evaluation_rankings(results: Iterable[AnyResult], kind: str) -> list[Ranking[Evaluated]]:
    """Of one open kind. Raises UserError if one run of one network stands in two files."""
    chosen = [r for r in results if isinstance(r, EvaluationResult) and r.result.kind == kind]
    varied = _varied_values(chosen)
    return _rankings(
        chosen,
        lambda r: _shared_settings(r, varied),
        lambda r: r.subject.model_dump_json(),
        _evaluated,
    )


def _varied_values(results: Iterable[Valued]) -> set[str]:
    """Names of the values that do not mean the same throughout, but for the number of images.

    That number is a setting of the whole ranking.
    """
    settings: dict[str, set[str]] = {}
    for result in results:
        for key in result.values:
            settings.setdefault(key, set()).add(_metric_settings(result, key))
    return {key for key, found in settings.items() if len(found) > 1}


def _metric_settings(result: Valued, key: str) -> str:
    return canonical_json(value_settings(result.result, key) | {"n": None})


def _rankings(
    results: Sequence[R],
    settings_of: Callable[[R], Settings],
    row_key: Callable[[R], str],
    row: Callable[[Sequence[R]], T],
) -> list[Ranking[T]]:
    found: dict[str, tuple[Result, Settings, dict[str, list[R]]]] = {}
    for result in results:
        settings = settings_of(result)
        key = canonical_json([result.result.dataset, settings])
        rows = found.setdefault(key, (result.result, settings, {}))[2]
        rows.setdefault(row_key(result), []).append(result)
    return [
        Ranking(
            dataset=first.dataset,
            settings=settings,
            rows=tuple(row(_distinct_runs(runs)) for runs in rows.values()),
            reference=first.reference,
            protocol_sha256=first.protocol_sha256,
        )
        for first, settings, rows in found.values()
    ]


def _distinct_runs(runs: Sequence[R]) -> Sequence[R]:
    seen: dict[str, Path] = {}
    for run in runs:
        seeds = canonical_json(run.result.seeds)
        if seeds in seen:
            raise UserError(
                f"{run.path} repeats {seen[seeds]}: same measurement, seeds {seeds}; remove one"
            )
        seen[seeds] = run.path
    return runs


def _classifier_settings(result: ClassifierResult, tested: Mapping[str, str]) -> Settings:
    subject = result.subject
    others = {"started from": subject.start_sha256, "taught by": subject.teacher_sha256}
    return {
        "model": subject.model,
        "recipe": subject.recipe,
        **{name: sha256 for name, sha256 in others.items() if sha256 is not None},
        **flatten("test set", reference_of(result.result, tested)),
        **flatten("protocol", result.result.protocol),
    }


def _score_settings(result: ScoresResult, varied: set[str]) -> Settings:
    return {"images": result.subject.images, **_shared_settings(result, varied)}


def _shared_settings(result: Valued, varied: set[str]) -> Settings:
    return {
        **flatten("protocol", result.result.protocol),
        **flatten("reference", reference_of(result.result, {})),
        **{
            f"metric settings of {key}": _metric_settings(result, key)
            for key in result.values
            if key in varied
        },
    }


def _training_key(result: ClassifierResult) -> str:
    return canonical_json([source.model_dump() for source in result.subject.train])


def _training(runs: Sequence[ClassifierResult]) -> Training:
    scores = {"top1": _score(runs, [run.values.top1 for run in runs])}
    top5 = [run.values.top5 for run in runs if run.values.top5 is not None]
    if len(top5) == len(runs):
        scores["top5"] = _score(runs, top5)
    return Training(
        sources=runs[0].subject.train,
        scores=scores,
        per_class=_per_class(runs),
        files=tuple(run.path for run in runs),
        checked=sum(run.checked for run in runs),
        is_cas=all(map(_is_cas, runs)),
    )


def _is_cas(run: ClassifierResult) -> bool:
    """Older results say `cas` of classifiers that were started or taught, too, or do not say it."""
    subject = run.subject
    helped = subject.start_sha256 is not None or subject.teacher_sha256 is not None
    return arm_of(subject.train) == "generated" and not helped and run.values.cas is not False


def _scored(runs: Sequence[ScoresResult]) -> Scored:
    keys = [key for key in runs[0].values if all(key in run.values for run in runs)]
    for key in keys:
        require_comparable([run.result for run in runs], key)
    return Scored(
        source=runs[0].subject,
        scores={key: _score(runs, [run.values[key] for run in runs]) for key in keys},
        per_class={key: rows for key in keys if (rows := runs[0].values[key].per_class)},
        values=runs[0].values,
        files=tuple(run.path for run in runs),
    )


def _evaluated(runs: Sequence[EvaluationResult]) -> Evaluated:
    keys = [key for key in runs[0].values if all(key in run.values for run in runs)]
    return Evaluated(
        system=runs[0].subject.system,
        sources=runs[0].subject.sources,
        scores={key: _score(runs, [run.values[key] for run in runs]) for key in keys},
        values=runs[0].values,
        files=tuple(run.path for run in runs),
    )


def _score(runs: Sequence[AnyResult], values: Sequence[Value]) -> Score:
    return Score(
        by_seeds={
            canonical_json(run.result.seeds): v.value for run, v in zip(runs, values, strict=True)
        },
        n=values[0].n,
        interval=values[0].interval if len(values) == 1 else None,
    )


def _per_class(runs: Sequence[ClassifierResult]) -> tuple[ClassScore, ...]:
    first = runs[0].values.per_class
    columns = [{c.wnid: c.top1 for c in run.values.per_class} for run in runs]
    for run, column in zip(runs, columns, strict=True):
        if set(column) != {c.wnid for c in first}:
            raise UserError(f"{run.path} has other classes per_class than {runs[0].path}")
    return tuple(
        ClassScore(c.wnid, c.name, c.n, fmean(column[c.wnid] for column in columns)) for c in first
    )


def differing_settings(rankings: Sequence[Ranking[T]]) -> list[str]:
    """Names of the settings in which the rankings of one data set are not all alike."""
    names = dict.fromkeys(name for ranking in rankings for name in ranking.settings)
    return [
        name for name in names if len({canonical_json(r.settings.get(name)) for r in rankings}) > 1
    ]
