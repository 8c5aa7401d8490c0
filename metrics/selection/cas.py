"""CAS of points: classifiers trained on their releases, tested on the tuning images.

OUT/cas/NAME                                       the point's release, made larger if asked
OUT/results/NAME/cas-RECIPE-PER_CLASS-seedS.json   one classifier's result, its predictions beside
OUT/results/NAME/cas-RECIPE-STAGEpx-PER_CLASS-seedS.json   of images that are not of its size
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder.builds.build import BuildPlan
from builder.builds.live_run import LiveRun
from classifiers.on_cluster.processes import Team, Training
from classifiers.on_cluster.trainings import perform_trainings
from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.task import Task, image_set
from metrics.selection.options import SPLIT
from metrics.selection.selection import Point, Progress, Selection
from release.errors import UserError
from release.files.storage import exists
from release.layout.manifest import MANIFEST_FILE, ShardRecord, read_manifest
from release.results.result import Result, read_result
from release.results.statistics import student_interval


@dataclass(frozen=True)
class CasSettings:
    """Which classifier, on how many images of each class, with which seeds.

    stage: resolution of the images, real and generated, that it is given; of another size than it
    takes they are brought to it by its recipe's view.
    """

    classifier: ClassifierRecipe
    per_class: int
    seeds: tuple[int, ...]
    stage: int

    @property
    def resized(self) -> bool:
        """Whether the images are brought to the classifier's size."""
        return self.stage != self.classifier.resolution

    def protocol(self) -> dict[str, Any]:
        """All that a CAS means: two of other protocols cannot be compared."""
        found: dict[str, Any] = {
            "classifier": self.classifier.name,
            "settings": self.classifier.protocol(),
            "per_class": self.per_class,
            "seeds": list(self.seeds),
        }
        if self.resized:
            view = self.classifier.view.model_dump(mode="json")
            found["images"] = {"resolution": self.stage, "view": view}
        return found

    def path(self, selection: Selection, point: Point, seed: int) -> Path:
        """Where the result of one seed stands."""
        size = f"-{self.stage}px" if self.resized else ""
        name = f"cas-{self.classifier.name}{size}-{self.per_class}-seed{seed}.json"
        return selection.out / "results" / point.name / name

    def task(self, selection: Selection, point: Point) -> Task:
        """What each of the point's classifiers is trained and tested on."""
        release, side = str(selection.out / "cas" / point.name), str(self.stage)
        return Task(
            recipe=self.classifier,
            train=(image_set(release, side, "train"),),
            test=image_set(str(selection.real), side, SPLIT),
            per_class=self.per_class,
        )

    def trainings(self, selection: Selection, point: Point) -> list[Training]:
        """Those of the point that have no result yet."""
        task, done = self.task(selection, point), self.read(selection, point)
        return [
            Training(task, seed, self.path(selection, point, seed).absolute())
            for seed in self.seeds
            if seed not in done
        ]

    def read(self, selection: Selection, point: Point) -> dict[int, Result]:
        """The results there are, by seed; UserError if the classifier's recipe or the weights of a
        stage were changed."""
        found = {}
        for seed in self.seeds:
            path = self.path(selection, point, seed)
            if not path.is_file():
                continue
            found[seed] = read_result(path)
            if not self.task(selection, point).recipe_made(found[seed]):
                raise UserError(
                    f"{path} is of another classifier recipe {self.classifier.name!r}: give "
                    "the recipe another name, or remove the file"
                )
            (learned,) = found[seed].subject["train"]
            if learned["images"] > self.per_class * len(selection.classes):
                raise UserError(
                    f"{path} learned from {learned['images']:,} images, more than "
                    f"{self.per_class} of each class: remove the file"
                )
        if found:
            self._require_same_stages(selection, point)
        return found

    def _require_same_stages(self, selection: Selection, point: Point) -> None:
        """The distance tells of the stage in question alone, not of those after it.

        A release that was removed for room tells nothing.
        """
        release = selection.out / "cas" / point.name
        if not exists(release / MANIFEST_FILE):
            return
        shards = read_manifest(release).shards
        made = {shard.fingerprint for shard in shards if shard.config == str(self.stage)}
        if made != {plan_cas(selection, point, self).stages[-1].fingerprint}:
            raise UserError(
                f"{release} is of other weights or settings of that name; name another --out"
            )

    def missing(self, selection: Selection, points: Sequence[Point]) -> list[Point]:
        """The points that lack a seed."""
        return [p for p in points if len(self.read(selection, p)) < len(self.seeds)]


def cas_stage(selection: Selection, classifier: ClassifierRecipe, asked: int | None) -> int:
    """Resolution of the images that a classifier is given: as asked, else of its own size.

    Where the chain does not go on to that size: of the stage in question. UserError for a size
    that it does not go on to.
    """
    known = [s.resolution for s in selection.recipe.stages if s.resolution >= selection.resolution]
    if asked is None:
        size = classifier.resolution
        return size if size in known else selection.resolution
    if asked not in known:
        raise UserError(
            f"--cas-stage {asked}: from stage {selection.resolution} on, recipe "
            f"{selection.recipe.name} makes {', '.join(map(str, known))} px"
        )
    return asked


def plan_cas(selection: Selection, point: Point, cas: CasSettings) -> BuildPlan:
    """Of the release that the classifier of `point` learns from."""
    return selection.plan_larger(point, cas.stage, cas.per_class)


def build_cas_releases(
    selection: Selection,
    live: LiveRun,
    points: Sequence[Point],
    cas: CasSettings,
    on_done: Callable[[ShardRecord], None],
) -> None:
    """Make them, taking over every shard that the points or their parent already have."""
    if not points:
        return
    parent = selection.plan_parent(cas.per_class)
    if parent is not None:
        live.adopt(selection.out / "parent", parent)
        live.build([parent], on_done)
    plans = [plan_cas(selection, point, cas) for point in points]
    for point, plan in zip(points, plans, strict=True):
        live.adopt(selection.folder(point), plan)
        if parent is not None:
            live.adopt(parent.release, plan)
    live.build(plans, on_done)


def train_on_points(
    selection: Selection,
    live: LiveRun,
    points: Sequence[Point],
    cas: CasSettings,
    team: Team,
    progress: Progress,
) -> None:
    """Every classifier that is missing, side by side on the cluster, each one's result kept."""
    trainings = [training for point in points for training in cas.trainings(selection, point)]
    if trainings:
        with progress(len(trainings)) as advance:

            def count(_training: Training, share: float) -> None:
                if share == 1:
                    advance(1)

            perform_trainings(live.cluster, trainings, team, count)


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
        "interval": student_interval(np.array(paired), cas[best]["n"]),
        "points": len(cas),
        "seeds": len(paired),
    }
