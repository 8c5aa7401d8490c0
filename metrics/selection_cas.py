"""CAS of points: classifiers trained on their releases, tested on the tuning images.

OUT/cas/NAME                                       the point's release, made larger if asked
OUT/results/NAME/cas-RECIPE-PER_CLASS-seedS.json   one classifier's result
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from builder.build import BuildPlan, plan_build
from builder.manifest import ShardRecord
from builder.results import Result, read_result
from builder.workshop import Workshop, adopt_shards
from classifiers.experiment import Experiment, run_experiment
from classifiers.recipe import ClassifierRecipe
from classifiers.sources import check_sources, load_source, open_source
from classifiers.statistics import student_interval
from generation.errors import UserError
from metrics.selection import SPLIT, Point, Progress, Selection


@dataclass(frozen=True)
class CasSettings:
    """Which classifier, on how many images of each class, with which seeds."""

    classifier: ClassifierRecipe
    per_class: int
    seeds: tuple[int, ...]

    def path(self, selection: Selection, point: Point, seed: int) -> Path:
        """Where the result of one seed stands."""
        name = f"cas-{self.classifier.name}-{self.per_class}-seed{seed}.json"
        return selection.out / "results" / point.name / name

    def read(self, selection: Selection, point: Point) -> dict[int, Result]:
        """The results there are, by seed; UserError if the classifier's recipe was changed."""
        found = {}
        for seed in self.seeds:
            path = self.path(selection, point, seed)
            if not path.is_file():
                continue
            found[seed] = read_result(path)
            wanted = self.classifier.protocol()
            if {k: found[seed].protocol.get(k) for k in wanted} != wanted:
                raise UserError(
                    f"{path} is of another classifier recipe {self.classifier.name!r}: give "
                    "the recipe another name, or remove the file"
                )
        return found

    def missing(self, selection: Selection, points: Sequence[Point]) -> list[Point]:
        """The points that lack a seed."""
        return [p for p in points if len(self.read(selection, p)) < len(self.seeds)]


def require_stage(selection: Selection, classifier: ClassifierRecipe) -> None:
    """UserError unless the chain goes on to the size that the classifier takes."""
    known = [s.resolution for s in selection.recipe.stages if s.resolution >= selection.resolution]
    if classifier.resolution not in known:
        raise UserError(
            f"classifier recipe {classifier.name} takes images of {classifier.resolution} px; from "
            f"stage {selection.resolution} on, recipe {selection.recipe.name} makes "
            f"{', '.join(map(str, known))} px: name another --classifier"
        )


def plan_cas(selection: Selection, point: Point, cas: CasSettings) -> BuildPlan:
    """Of the release that the classifier of `point` learns from."""
    chain = point.recipe.chain(cas.classifier.resolution)
    folder = selection.out / "cas" / point.name
    return plan_build(point.recipe, chain, selection.classes, cas.per_class, folder)


def build_cas_releases(
    selection: Selection,
    shop: Workshop,
    points: Sequence[Point],
    cas: CasSettings,
    on_done: Callable[[ShardRecord], None],
) -> None:
    """Make them, taking over every shard that the points or their parent already have."""
    if not points:
        return
    parent = selection.plan_parent(cas.per_class)
    if parent is not None:
        adopt_shards(selection.out / "parent", parent)
        shop.build([parent], on_done)
    plans = [plan_cas(selection, point, cas) for point in points]
    for point, plan in zip(points, plans, strict=True):
        adopt_shards(selection.folder(point), plan)
        if parent is not None:
            adopt_shards(parent.release, plan)
    shop.build(plans, on_done)


def train_on_points(
    selection: Selection,
    points: Sequence[Point],
    cas: CasSettings,
    progress: Callable[[str], Progress],
) -> None:
    """Every classifier that is missing, tested on the tuning images."""
    size = cas.classifier.resolution
    testing: Any = None
    test = open_source(f"{selection.real}:{size}:{SPLIT}", size)
    for point in points:
        release = selection.out / "cas" / point.name
        done = cas.read(selection, point)
        train = open_source(f"{release}:{size}:train", size)
        check_sources([train], test)
        training = load_source(train, size)
        testing = testing if testing is not None else load_source(test, size)
        experiment = Experiment(
            recipe=cas.classifier,
            steps=None,
            train=(train,),
            train_images=(len(training),),
            training=training,
            test=test,
            test_images=len(testing),
            testing=testing,
        )
        for seed in cas.seeds:
            if seed not in done:
                path = cas.path(selection, point, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                run_experiment(experiment, seed, path, progress(f"{point.name}, seed {seed}"))


def mean_accuracy(results: dict[int, Result]) -> dict[str, Any]:
    """CAS over the seeds: mean, Student's 95% interval over seeds, each seed's."""
    seeds = sorted(results)
    values = np.array([results[seed].values["top1"]["value"] for seed in seeds])
    return {
        "value": float(values.mean()),
        "interval": student_interval(values),
        "n": results[seeds[0]].values["top1"]["n"],
        "by_seed": {str(seed): float(v) for seed, v in zip(seeds, values, strict=True)},
    }


def regret(cas: dict[str, dict[str, Any]], winner: str) -> dict[str, Any]:
    """What choosing `winner` loses against the best by CAS: difference, paired over seeds."""
    best = max(cas, key=lambda name: (cas[name]["value"], name == winner))
    paired = [
        cas[best]["by_seed"][seed] - cas[winner]["by_seed"][seed] for seed in cas[best]["by_seed"]
    ]
    return {
        "fd_winner": winner,
        "cas_winner": best,
        "value": float(np.mean(paired)),
        "interval": student_interval(np.array(paired)),
        "points": len(cas),
        "seeds": len(paired),
    }


def rank_correlation(distances: Sequence[float], accuracies: Sequence[float]) -> dict[str, Any]:
    """Spearman's of FD and CAS, -1 where the screen orders the points as CAS does; n, p."""
    if len(distances) < 3 or len(set(distances)) < 2 or len(set(accuracies)) < 2:
        return {"spearman": None, "p": None, "n": len(distances)}
    found = spearmanr(distances, accuracies)
    return {"spearman": float(found.statistic), "p": float(found.pvalue), "n": len(distances)}
