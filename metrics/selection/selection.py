"""What selecting a checkpoint and selecting sampler settings share: points, built and scored.

A point is a recipe that differs from the others in one stage. Its release is an ordinary one, and
is judged by its Fréchet distance to the tuning split of a real release: the tenth of train that no
generator learned from. The reporting split is never read.

OUT/build.json            what all points share; another selection is refused there
OUT/parent                the release of the stages before, which the points share; OUT/parent-N
                          is the same with N images of each class, for CAS
OUT/points/NAME           a point's release
OUT/results/NAME/fd.json  its distance; a point that has it is not built again
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from builder.builds.build import BuildPlan, plan_build
from builder.builds.live_run import LiveRun
from builder.planning.recipe import Recipe, StageRecipe
from builder.state import STATE_FILE
from generation.families import generator_source
from generation.pretrained.training_data import saw_tuning
from metrics.features.extraction import extract_on, plan_extraction
from metrics.features.image_lists import ImageSet, open_image_set
from metrics.selection.options import SPLIT
from metrics.selection.report_model import Kind
from release.classes.class_list import ClassEntry, load_classes
from release.errors import UserError
from release.files.commit import canonical_json, write_atomically
from release.layout.manifest import ShardRecord, read_manifest
from release.results.result import Result, read_result

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]

FEWEST_REAL = 2  # images that a covariance takes


@dataclass(frozen=True)
class Point:
    """A candidate: its release's name, what it differs in, and its recipe."""

    name: str
    settings: dict[str, Any]
    recipe: Recipe

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Selection:
    """What all points share. resolution: of the stage in which they differ."""

    recipe: Recipe
    resolution: int
    real: Path
    per_class: int
    extractor: str
    out: Path
    _plans: dict[Path, BuildPlan] = field(default_factory=dict, repr=False, compare=False)
    _references: dict[int, ImageSet] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def classes(self) -> tuple[ClassEntry, ...]:
        return load_classes(self.recipe.classes)

    @cached_property
    def parents(self) -> tuple[StageRecipe, ...]:
        """The stages before the one in question."""
        return self.recipe.chain(self.resolution)[:-1]

    def reference(self, resolution: int) -> ImageSet:
        """The tuning images at one resolution; UserError if there are none."""
        if resolution not in self._references:
            if read_manifest(self.real).kind != "real":
                raise UserError(
                    f"--real {self.real} is a synthetic release; see build-dataset --real"
                )
            self._references[resolution] = open_image_set(self.real, str(resolution), SPLIT)
        return self._references[resolution]

    def require_reference(self, cache: Path) -> None:
        """UserError for fewer tuning images than a distance takes."""
        reference = self.reference(self.resolution)
        if (count := reference.count(cache)) < FEWEST_REAL:
            raise UserError(
                f"{reference.label} is a tenth of train, of each class: {count} here, and a "
                f"distance takes at least {FEWEST_REAL} images; import 10 or more of each class"
            )

    def folder(self, point: Point) -> Path:
        """Of the point's release."""
        return self.out / "points" / point.name

    def distance_path(self, point: Point) -> Path:
        """Where the result with its distance stands."""
        return self.out / "results" / point.name / "fd.json"

    def plan(self, point: Point) -> BuildPlan:
        """Of the point's small release, up to the stage in question."""
        return self._planned(point.recipe, self.resolution, self.per_class, self.folder(point))

    def plan_larger(self, point: Point, resolution: int, per_class: int) -> BuildPlan:
        """Of the release of `point` that a classifier learns from, up to `resolution`."""
        folder = self.out / "cas" / point.name
        return self._planned(point.recipe, resolution, per_class, folder)

    def plan_parent(self, per_class: int) -> BuildPlan | None:
        """Of the release that the points share, None for a first stage."""
        if not self.parents:
            return None
        suffix = "" if per_class == self.per_class else f"-{per_class}"
        folder, last = self.out / f"parent{suffix}", self.parents[-1].resolution
        return self._planned(self.recipe.lossless(), last, per_class, folder)

    def _planned(self, recipe: Recipe, last: int, per_class: int, folder: Path) -> BuildPlan:
        """Once a folder: a plan does not follow what is made meanwhile."""
        if folder not in self._plans:
            chain, classes = recipe.chain(last), self.classes
            plan = plan_build(recipe, chain, classes, per_class, folder, classes)
            self._plans[folder] = plan
        return self._plans[folder]

    def stage(self, point: Point) -> dict[str, str]:
        """What decides the point's pixels: fingerprint, and hash of its weights."""
        stage = self.plan(point).stages[-1]
        return {"fingerprint": stage.fingerprint, "checkpoint_sha256": stage.checkpoint_sha256}

    def without_distance(self, points: Sequence[Point]) -> list[Point]:
        """The points that are still to be built and scored."""
        return [point for point in points if not self.distance_path(point).is_file()]

    def require_same_stages(self, points: Sequence[Point]) -> None:
        """UserError for a distance, from an earlier call, of other weights or settings."""
        for point in points:
            path = self.distance_path(point)
            if path.is_file() and read_result(path).subject.get("stage") != self.stage(point):
                raise UserError(
                    f"{path} is of other weights or settings of that name; name another --out"
                )

    def claim(self, kind: Kind, *, write: bool) -> None:
        """Write down, if asked to, what is selected here; UserError if OUT holds another."""
        record = {
            "kind": kind,
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
            "resolution": self.resolution,
            "per_class": self.per_class,
            "split": SPLIT,
            "extractor": self.extractor,
            "real": self.reference(self.resolution).identity,
        }
        path = self.out / STATE_FILE
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        if path.is_file() and path.read_bytes() != text.encode():
            raise UserError(
                f"{self.out} holds another selection: {_first_change(path.read_bytes(), record)}; "
                "name another --out"
            )
        if write:
            write_atomically(path, text.encode())


def _first_change(text: bytes, record: dict[str, Any]) -> str:
    try:
        old = json.loads(text)
    except ValueError:
        return f"{STATE_FILE} cannot be read"
    field = next((name for name in record if old.get(name) != record[name]), STATE_FILE)
    if isinstance(record.get(field), dict):
        return f"another {field}"
    return f"{field} was {old.get(field)}, now {record.get(field)}"


def require_tuning_unseen(stages: Sequence[StageRecipe]) -> None:
    """UserError for a checkpoint that says it learned from the tuning images, too, and for
    exemplars that may be some of them."""
    for stage in stages:
        if stage.exemplars is not None and stage.exemplars.split == "train":
            raise UserError(
                f"the exemplars of {stage.resolution} px, of split 'train', may be tuning images: "
                "nothing can be selected on them; leave the split out, or name 'fit'"
            )
        for checkpoint in stage.checkpoints:
            if saw_tuning(generator_source(stage.generator).locate(checkpoint)):
                raise UserError(
                    f"checkpoint {checkpoint} was trained on the tuning images, too: nothing can "
                    "be selected on them; train it with --split fit"
                )


def build_points(
    selection: Selection,
    live: LiveRun,
    points: Sequence[Point],
    on_done: Callable[[ShardRecord], None],
) -> None:
    """Make the releases of `points`: the parent they share first, then all shards as one list."""
    parent = selection.plan_parent(selection.per_class)
    if parent is not None and points:
        live.build([parent], on_done)
    plans = [selection.plan(point) for point in points]
    for plan in plans:
        if parent is not None:
            live.adopt(parent.release, plan)
    live.build(plans, on_done)


def score_points(
    selection: Selection,
    points: Sequence[Point],
    live: LiveRun,
    cache: Path,
    device: str,
    progress: Progress,
) -> dict[str, Result]:
    """Each point's distance to the tuning images, by name: computed once, then read.

    Features are extracted on the same workers, one torch thread each.
    """
    missing = selection.without_distance(points)
    if missing:
        from metrics.features.extractors import load_extractor

        extractor = load_extractor(selection.extractor, device)
        from metrics.scoring.metric_list import METRICS
        from metrics.scoring.scoring import Scorer

        reference = selection.reference(selection.resolution)
        config = str(selection.resolution)
        subjects = {p: open_image_set(selection.folder(p), config, "train") for p in missing}
        tasks = plan_extraction(
            [reference, *subjects.values()],
            extractor.protocol,
            selection.extractor,
            device,
            extractor.batch,
            cache,
        )
        with progress(sum(task.images for task in tasks)) as advance:
            extract_on(live.cluster, tasks, lambda task: advance(task.images))
        scorer = Scorer(extractor, {"fd": METRICS["fd"]}, cache)
        for point, subject in subjects.items():
            result = scorer.score(subject, [reference])
            result.subject["stage"] = selection.stage(point)
            result.write(selection.distance_path(point))
    found = {point.name: read_result(selection.distance_path(point)) for point in points}
    _require_one_network(selection, found)
    return found


def _require_one_network(selection: Selection, found: Mapping[str, Result]) -> None:
    """UserError for distances by weights that were replaced under one name since."""
    by_protocol = {canonical_json(result.protocol): name for name, result in found.items()}
    if len(by_protocol) > 1:
        one, other, *_ = by_protocol.values()
        raise UserError(
            f"the distances of {one} and {other} are of two networks, both called "
            f"{selection.extractor}: name another --out"
        )


def distance(result: Result) -> dict[str, Any]:
    """value, interval, n and the rest of the distance in a point's result."""
    found: dict[str, Any] = result.values[f"fd_{SPLIT}"]
    return found
