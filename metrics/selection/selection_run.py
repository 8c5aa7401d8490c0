"""A selection under way: cost, releases, distances, short list, CAS."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from builder.builds.live_run import LiveRun, live_run
from builder.builds.run import RunSettings
from builder.planning.device_cost import known_evaluations
from classifiers.study.runs import Trainers
from metrics.scoring.comparability import difference_interval
from metrics.selection.cas import (
    CasSettings,
    build_cas_releases,
    mean_accuracy,
    plan_cas,
    regret,
    train_on_points,
)
from metrics.selection.cost import Cost, Work, cost_of, measure, missing_work, total
from metrics.selection.report_model import Choice
from metrics.selection.selection import Point, Selection, build_points, distance, score_points
from release.commands.progress import progress_bar
from release.results.result import Result, read_result
from release.results.statistics import rank_correlation


@dataclass(frozen=True)
class SelectionRun:
    """A selection with what it takes. short_list: so many points get a CAS; cas None: none does."""

    selection: Selection
    points: Sequence[Point]
    cas: CasSettings | None
    short_list: int
    trainers: Trainers
    cache: Path
    device: str
    quiet: bool

    def perform(self, *, dry_run: bool) -> tuple[Cost, Choice | None]:
        """Print the cost, then do what is missing; a dry run chooses nothing."""
        self.selection.require_same_stages(self.points)
        lacking = self.selection.without_distance(self.points)
        work = self._work(lacking)
        most = max(1, sum(w.images for w in work.values()), self._most_trainings)
        settings = RunSettings(self.trainers.cluster, say=self._remark, mixing_offered=False)
        with live_run(settings, most) as live:
            cost = self._cost(live, work)
            if not self.quiet:
                print(f"{len(self.points)} points, {len(lacking)} of them to do")
                print(cost.line())
            if dry_run:
                return cost, None
            results = self._scored(live, lacking)
            distances = {name: distance(result) for name, result in results.items()}
            accuracies = self._accuracies(live, self._short_list(distances))
        stages = {name: result.subject["stage"] for name, result in results.items()}
        return cost, self._choice(distances, stages, accuracies)

    def _work(self, lacking: Sequence[Point]) -> dict[int, Work]:
        """What is to be made, by resolution; `lacking`: the points without a distance."""
        jobs = [job for point in lacking for job in self.selection.plan(point).jobs()]
        own = [job for job in jobs if job.plan.stage.recipe.resolution == self.selection.resolution]
        parent = self.selection.plan_parent(self.selection.per_class) if lacking else None
        shared = missing_work(parent.jobs()) if parent else {}
        return total([missing_work(own), shared, self._cas_work()])

    def _scored(self, live: LiveRun, lacking: Sequence[Point]) -> dict[str, Result]:
        """Every point's distance, by name, those of `lacking` built and scored now."""
        parent = self.selection.plan_parent(self.selection.per_class) if lacking else None
        images = sum(self.selection.plan(point).images for point in lacking)
        images += parent.images if parent else 0
        with progress_bar(images, "points", "images", quiet=self.quiet) as advance:
            build_points(self.selection, live, lacking, lambda record: advance(record.rows))
        bar = partial(progress_bar, label="features", unit="images", quiet=self.quiet)
        return score_points(self.selection, self.points, live, self.cache, self.device, bar)

    @property
    def _most_trainings(self) -> int:
        return self.short_list * len(self.cas.seeds) if self.cas else 0

    def _remark(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def _cost(self, live: LiveRun, work: dict[int, Work]) -> Cost:
        if not work:
            return Cost(0, 0, 0, 0.0, 0.0)
        classes = self.selection.classes
        self._remark(f"calibrating up to {max(work)} px on a worker: a batch a stage, thrown away")
        speeds = measure(live, self.points[0].recipe, max(work), classes)
        return cost_of(work, speeds, live.cluster.threads())

    def _cas_work(self) -> dict[int, Work]:
        """At most so much: what a short list's releases need beyond the points' own images."""
        if self.cas is None or not self.short_list:
            return {}
        lacking = self.cas.missing(self.selection, self._candidates())
        counted = lacking[: self.short_list]
        if not counted:
            return {}
        classes, stage = len(self.selection.classes), self.selection.resolution
        more = max(0, self.cas.per_class - self.selection.per_class) * classes
        work: list[dict[int, Work]] = []
        for number, point in enumerate(counted):
            for s in point.recipe.chain(self.cas.stage):
                images = more if s.resolution <= stage else self.cas.per_class * classes
                if (s.resolution >= stage or number == 0) and images:
                    work.append({s.resolution: Work(images, images * known_evaluations(s))})
        return total(work)

    def _candidates(self) -> Sequence[Point]:
        """The short list once every distance is known; until then any point may be on it."""
        if self.selection.without_distance(self.points):
            return self.points
        paths = {point.name: self.selection.distance_path(point) for point in self.points}
        return self._short_list({name: distance(read_result(p)) for name, p in paths.items()})

    def _short_list(self, distances: dict[str, dict[str, Any]]) -> list[Point]:
        """The best by distance, best first."""
        ranked = sorted(self.points, key=lambda point: distances[point.name]["value"])
        return ranked[: self.short_list]

    def _accuracies(self, live: LiveRun, chosen: Sequence[Point]) -> dict[str, dict[str, Any]]:
        """CAS of the short list, by name."""
        if self.cas is None or not chosen:
            return {}
        missing = self.cas.missing(self.selection, chosen)
        plans = [plan_cas(self.selection, point, self.cas) for point in missing]
        parent = self.selection.plan_parent(self.cas.per_class) if missing else None
        images = sum(plan.images for plan in (*plans, parent) if plan is not None)
        with progress_bar(images, "CAS releases", "images", quiet=self.quiet) as advance:
            build_cas_releases(
                self.selection, live, missing, self.cas, lambda record: advance(record.rows)
            )
        bar = partial(progress_bar, label="CAS", unit="trainings", quiet=self.quiet)
        train_on_points(self.selection, live, missing, self.cas, self.trainers.team, bar)
        return {point.name: mean_accuracy(self.cas.read(self.selection, point)) for point in chosen}

    def _choice(
        self,
        distances: dict[str, dict[str, Any]],
        stages: dict[str, dict[str, str]],
        accuracies: dict[str, dict[str, Any]],
    ) -> Choice:
        """The best by distance; by CAS where it was measured."""
        winner = min(distances, key=lambda name: distances[name]["value"])
        content: dict[str, Any] = {
            "points": [
                {
                    "name": point.name,
                    "settings": point.settings,
                    "stage": stages[point.name],
                    "fd": distances[point.name],
                    "cas": accuracies.get(point.name),
                }
                for point in self.points
            ],
            "chosen": winner,
            "chosen_by": "fd",
            "runner_up": runner_up(distances, winner, further),
        }
        if accuracies:
            found = regret(accuracies, winner)
            content |= {
                "chosen": found["cas_winner"],
                "chosen_by": "cas",
                "runner_up": runner_up(accuracies, found["cas_winner"], less_accurate),
                "regret_of_fd": found,
                "correlation_fd_cas": rank_correlation(
                    [distances[name]["value"] for name in accuracies],
                    [accuracies[name]["value"] for name in accuracies],
                ),
            }
        return Choice.model_validate(content)


def runner_up(
    found: dict[str, dict[str, Any]],
    chosen: str,
    worse: Callable[[dict[str, Any], dict[str, Any]], tuple[float, list[float] | None]],
) -> dict[str, Any] | None:
    """The second best, by how much it is worse than the chosen one, and whether significantly.

    worse: by how much the second of two is worse, with its 95% interval. None with a single point.
    """
    others = {name: worse(found[chosen], found[name]) for name in found if name != chosen}
    if not others:
        return None
    second = min(others, key=lambda name: others[name][0])
    value, interval = others[second]
    told_apart = interval is not None and interval[0] > 0
    return {"name": second, "worse_by": value, "interval": interval, "told_apart": told_apart}


def further(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, list[float] | None]:
    """By distance, each with an interval of its own."""
    return other["value"] - one["value"], difference_interval(one, other)


def less_accurate(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, list[float] | None]:
    """By CAS, paired over the classifiers' seeds."""
    lost = regret({"one": one, "other": other}, "other")
    return lost["value"], lost["interval"]
