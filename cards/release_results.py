"""The results about one release, out of a folder that holds those of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.manifest import Manifest
from cards.measured import (
    Ranking,
    Scored,
    Training,
    baseline_of,
    classifier_rankings,
    score_rankings,
)
from cards.result_schema import AnyResult, read_results
from generation.errors import UserError


@dataclass(frozen=True)
class AboutTraining:
    """A classifier that learned from this release alone, and the real-only run beside it."""

    ranking: Ranking[Training]
    row: Training
    baseline: Training | None


@dataclass(frozen=True)
class AboutScores:
    """Distances and Inception Score of one split of this release."""

    ranking: Ranking[Scored]
    row: Scored


def results_about(
    manifest: Manifest, folder: Path
) -> tuple[list[AboutTraining], list[AboutScores]]:
    """Raises UserError if no result in `folder` is about these very images."""
    results = read_results(folder)
    trainings = [
        AboutTraining(ranking, row, baseline_of(ranking, row))
        for ranking in classifier_rankings(results)
        for row in ranking.rows
        if [s.content_sha256 for s in row.sources] == [manifest.content_sha256]
    ]
    scores = [
        AboutScores(ranking, row)
        for ranking in score_rankings(results)
        for row in ranking.rows
        if row.source.content_sha256 == manifest.content_sha256
    ]
    if not trainings and not scores:
        raise UserError(_why_none(manifest, folder, results))
    return trainings, scores


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
