"""What a selection is going to cost, from what it lacks and a measured calibration batch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from builder.builds.estimate import calibrate
from builder.builds.live_run import LiveRun
from builder.planning.device_cost import known_evaluations
from builder.planning.recipe import Recipe, StageRecipe
from builder.shards.shard import ShardJob
from release.classes.class_list import ClassEntry
from release.commands.duration import duration
from release.files.storage import absolute_if_folder


@dataclass(frozen=True)
class Work:
    """Images still to make at one stage, and the network evaluations they take."""

    images: int
    evaluations: int


@dataclass(frozen=True)
class Speed:
    """Of one stage on one worker: seconds an image and evaluation, encoded bytes an image."""

    seconds: float
    bytes: float


@dataclass(frozen=True)
class Cost:
    """workers: processes it is spread over; hours: wall-clock time of sampling, the whole."""

    images: int
    network_evaluations: int
    workers: int
    hours: float
    megabytes: float

    def line(self) -> str:
        """As a person reads it."""
        return (
            f"to make: {self.images:,} images, {self.network_evaluations:,} network evaluations, "
            f"about {duration(self.hours)} on {self.workers} workers, {self.megabytes:,.1f} MB"
        )

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def missing_work(jobs: Sequence[ShardJob]) -> dict[int, Work]:
    """By resolution, what the uncommitted ones of `jobs` amount to."""
    work: dict[int, Work] = {}
    for job in jobs:
        if job.committed() is None:
            stage, rows = job.plan.stage.recipe, job.plan.block.rows
            old = work.get(stage.resolution, Work(0, 0))
            evaluations = rows * known_evaluations(stage)
            work[stage.resolution] = Work(old.images + rows, old.evaluations + evaluations)
    return work


def measure(
    live: LiveRun, recipe: Recipe, resolution: int, classes: Sequence[ClassEntry]
) -> dict[int, Speed]:
    """Speed of the stages up to `resolution`: a batch of each, sampled on a worker."""
    chain = [_at_absolute_places(stage) for stage in recipe.chain(resolution)]
    costs = live.call(calibrate, recipe, chain, classes, _say_nothing)
    return {
        stage.resolution: Speed(
            (costs[stage.resolution].seconds or 0.0) / known_evaluations(stage),
            costs[stage.resolution].bytes,
        )
        for stage in chain
    }


def _at_absolute_places(stage: StageRecipe) -> StageRecipe:
    """Workers may run in another folder."""
    changes: dict[str, Any] = {"checkpoint": absolute_if_folder(stage.checkpoint)}
    if stage.guide is not None:
        place = absolute_if_folder(stage.guide.checkpoint)
        changes["guide"] = stage.guide.model_copy(update={"checkpoint": place})
    return stage.model_copy(update=changes)


def _say_nothing(_: str) -> None:
    """On a worker nobody listens."""


def cost_of(work: dict[int, Work], speeds: dict[int, Speed], workers: int) -> Cost:
    """The sum over all stages."""
    seconds = sum(w.evaluations * speeds[r].seconds for r, w in work.items())
    size = sum(w.images * speeds[r].bytes for r, w in work.items())
    return Cost(
        images=sum(w.images for w in work.values()),
        network_evaluations=sum(w.evaluations for w in work.values()),
        workers=workers,
        hours=seconds / workers / 3600,
        megabytes=size / 1e6,
    )


def total(parts: Sequence[dict[int, Work]]) -> dict[int, Work]:
    """Stage by stage."""
    added: dict[int, Work] = {}
    for part in parts:
        for resolution, work in part.items():
            old = added.get(resolution, Work(0, 0))
            added[resolution] = Work(old.images + work.images, old.evaluations + work.evaluations)
    return added
