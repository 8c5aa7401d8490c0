"""The results about one release, out of a folder that holds those of many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cards.measured.against_real import baseline_of
from cards.measured.rankings import (
    Evaluated,
    Ranking,
    Scored,
    Training,
    classifier_rankings,
    evaluation_rankings,
    score_rankings,
)
from cards.measured.result_folder import read_results
from cards.measured.result_schema import AnyResult
from classifiers.training.result_values import Source
from metrics.evaluation import Evaluation
from metrics.evaluations import EVALUATIONS
from release.errors import UserError
from release.layout.manifest import Manifest

R = TypeVar("R", Training, Scored, Evaluated)
KINDS = {
    "accuracies of classifiers": "train-classifier --train {name} --test REAL",
    "distances": "score-release {name}:{config} --real REAL",
}


@dataclass(frozen=True)
class About(Generic[R]):
    """A measurement of this release. made_with: versions and hardware of the runs."""

    ranking: Ranking[R]
    row: R
    made_with: tuple[str, ...]


@dataclass(frozen=True)
class AboutTraining(About[Training]):
    """A classifier that learned from this release, alone or with real images.

    baseline: the real-only run beside it.
    """

    baseline: Training | None

    @property
    def trained_on(self) -> str:
        """Each part of the training set with its number of images."""
        parts = [f"{'real' if s.kind == 'real' else 'these'} {s.images:,}" for s in self.parts]
        return " + ".join(parts)

    @property
    def parts(self) -> Sequence[Source]:
        """The training set's, real images first."""
        return sorted(self.row.sources, key=lambda s: s.kind != "real")


@dataclass(frozen=True)
class Results:
    """All that is known of one release; `missing`: kinds of result there are none of.

    evaluations: of networks that learned from it, alone or with real images.
    """

    trainings: Sequence[AboutTraining] = ()
    scores: Sequence[About[Scored]] = ()
    evaluations: Sequence[tuple[Evaluation, About[Evaluated]]] = ()
    missing: tuple[str, ...] = tuple(KINDS)

    def by_training_set(self) -> dict[str, list[AboutTraining]]:
        """Classifiers that learned from the same images, by what those are."""
        found: dict[str, list[AboutTraining]] = {}
        for about in self.trainings:
            found.setdefault(about.trained_on, []).append(about)
        return found


def results_about(manifest: Manifest, folder: Path, *, allow_missing: bool = False) -> Results:
    """Raises UserError if `folder` has no result about these very images, or none of one kind.

    allow_missing: one kind is enough.
    """
    results = read_results(folder)
    made_with = {result.path: _made_with(result.result.environment) for result in results}
    trainings = [
        AboutTraining(ranking, row, _distinct(made_with, row.files), baseline_of(ranking, row))
        for ranking in classifier_rankings(results)
        for row in ranking.rows
        if _learned_from(manifest, row)
    ]
    scores = [
        About(ranking, row, _distinct(made_with, row.files))
        for ranking in score_rankings(results)
        for row in ranking.rows
        if row.source.content_sha256 == manifest.content_sha256
    ]
    evaluations = [
        (evaluation, About(ranking, row, _distinct(made_with, row.files)))
        for evaluation in EVALUATIONS.values()
        for ranking in evaluation_rankings(results, evaluation.kind)
        for row in ranking.rows
        if _learned_from(manifest, row)
    ]
    found = Results(trainings, scores, evaluations, _missing(trainings, scores))
    if not trainings and not scores and not evaluations:
        raise UserError(_why_none(manifest, folder, results))
    if found.missing and not allow_missing:
        raise UserError(_what_lacks(manifest, folder, found.missing[0]))
    return found


def _learned_from(manifest: Manifest, row: Training | Evaluated) -> bool:
    """From these images alone, or from them and real ones."""
    others = [s for s in row.sources if s.content_sha256 != manifest.content_sha256]
    return len(others) < len(row.sources) and all(s.kind == "real" for s in others)


def _missing(trainings: Sequence[Any], scores: Sequence[Any]) -> tuple[str, ...]:
    found = zip(KINDS, (trainings, scores), strict=True)
    return tuple(kind for kind, results in found if not results)


def _made_with(environment: dict[str, Any]) -> str:
    """A result's hardware and versions in a line."""
    versions = environment.get("versions", {})
    packages = [f"{name} {versions[name]}" for name in ("torch", "timm") if name in versions]
    device = [str(environment["device"])] if "device" in environment else []
    return ", ".join([*packages, *device])


def _distinct(made_with: dict[Path, str], files: Iterable[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(made_with[path] for path in files if made_with[path]))


def _what_lacks(manifest: Manifest, folder: Path, kind: str) -> str:
    command = KINDS[kind].format(name=manifest.name, config=next(reversed(manifest.base.splits())))
    return (
        f"{folder} has no {kind} about {manifest.name}: run `{command}` first, or render the card "
        "without them by --allow-missing"
    )


def _why_none(manifest: Manifest, folder: Path, results: Sequence[AnyResult]) -> str:
    wanted = manifest.content_sha256[:12]
    for result in results:
        for source in result.sources:
            if source.name == manifest.name:
                return (
                    f"{result.path} is about another {manifest.name} (content "
                    f"{source.content_sha256[:12]}); this release is {wanted}: score it again"
                )
    return (
        f"no result in {folder} is about {manifest.name} (content {wanted}); "
        "run score-release and train-classifier on it first"
    )
