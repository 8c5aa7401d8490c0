"""Whether distances order generated sets as CAS does."""

from collections.abc import Sequence
from dataclasses import dataclass

from cards.drawing.tables import signed
from cards.measured.cells import names_of
from cards.measured.rankings import Ranking, Scored, Training
from cards.measured.score_names import extractor_name, score_name
from cards.measured.tables import find_scored
from release.results.statistics import rank_correlation, rank_interval

DISTANCES = ("fd_train", "fd_validation", "fd_test")
LEAST = 4  # sets: a rank correlation of fewer says nothing


@dataclass(frozen=True)
class Point:
    """A generated set. top1: its CAS, a fraction, mean over seeds."""

    name: str
    distance: float
    top1: float


@dataclass(frozen=True)
class Agreement:
    """Two sets or more that one ranking of classifiers and one of distances have in common."""

    trainings: Ranking[Training]
    scores: Ranking[Scored]
    metric: str
    points: tuple[Point, ...]

    @property
    def distance(self) -> str:
        return score_name(self.metric)

    @property
    def settings(self) -> str:
        """Of both, in words."""
        ranking = self.trainings
        return (
            f"{ranking.settings['model']}, recipe {ranking.recipe}; "
            f"{extractor_name(self.scores.settings)}"
        )

    @property
    def correlation(self) -> str:
        """Spearman's with its interval over sets, in a sentence; "" for few sets."""
        if len(self.points) < LEAST:
            return ""
        found = rank_correlation([p.distance for p in self.points], [p.top1 for p in self.points])
        rho, n = found["spearman"], found["n"]
        if rho is None:
            return ""
        ends = rank_interval(rho, n)
        interval = f", 95% {signed(ends[0], 2)} to {signed(ends[1], 2)}" if ends else ""
        return (
            f"Rank correlation of {self.distance} and CAS over {n} sets: Spearman {signed(rho, 2)}"
            f"{interval}; {signed(-1, 0)} where the distance orders them as CAS does."
        )


def agreements(
    trainings: Sequence[Ranking[Training]], scores: Sequence[Ranking[Scored]]
) -> list[Agreement]:
    """Each pair of rankings, by distance, that has two generated sets or more in common."""
    names = names_of(s for r in trainings for row in r.rows for s in row.sources)
    found = [
        Agreement(ranking, scored, metric, tuple(_points(ranking, scored, metric, names)))
        for ranking in trainings
        for scored in scores
        for metric in DISTANCES
    ]
    return [agreement for agreement in found if len(agreement.points) > 1]


def _points(
    ranking: Ranking[Training],
    scored: Ranking[Scored],
    metric: str,
    names: dict[tuple[str, str], str],
) -> list[Point]:
    pairs = [(row, find_scored(scored, row)) for row in ranking.rows if row.is_cas]
    return [
        Point(
            names[row.sources[0].name, row.sources[0].content_sha256],
            match.scores[metric].mean,
            row.scores["top1"].mean,
        )
        for row, match in pairs
        if match is not None and metric in match.scores
    ]
