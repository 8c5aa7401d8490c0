"""What a study takes, told before it begins: trainings, images, multiply-adds, hours."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.study.plan import Run
from generation.networks.gpus import Precision
from release.commands.duration import duration
from release.commands.progress import progress_bar

FORWARD_AND_BACKWARD = 3  # in forward passes; a study's teacher, the same network, takes one more
PROBE_MULTIPLY_ADDS = 4e9  # of the steps that are timed: a large network sees few images
PROBE_STEPS = 3
PROBE_S = 1.0  # of timed steps; then fewer will do


@dataclass(frozen=True)
class Cost:
    """Of all trainings of one classifier. images: seen; multiply_adds: of them all, with backward.

    hours: on one worker, at the pace of a few steps timed here; None if none were timed.
    precision: of the network on a GPU.
    """

    model: str
    runs: int
    images: int
    multiply_adds: float
    hours: float | None
    precision: Precision = "single"

    def as_line(self) -> str:
        hours = "" if self.hours is None else f", {duration(self.hours)} on one worker"
        return (
            f"{self.model}: {self.runs} trainings, {self.images:,} images seen, "
            f"{self.multiply_adds:.1e} multiply-adds{hours}"
        )


def study_costs(
    runs: Sequence[Run], classes: int, threads: int | None, *, quiet: bool = True
) -> list[Cost]:
    """One a classifier, of `runs` of all sizes; a few steps of each are timed with `threads` torch
    threads.

    quiet: without progress.
    """
    by_recipe: dict[str, tuple[ClassifierRecipe, list[Run]]] = {}
    for run in runs:
        recipe = run.task.recipe
        key = recipe.model_dump_json(exclude={"epochs"})  # which sizes may set
        by_recipe.setdefault(key, (recipe, []))[1].append(run)
    costs = []
    with progress_bar(len(by_recipe), "timing here", "classifiers", quiet=quiet) as advance:
        for recipe, own in by_recipe.values():
            costs.append(_cost(recipe, own, classes, threads))
            advance(1)
    return costs


def _cost(recipe: ClassifierRecipe, own: Sequence[Run], classes: int, threads: int | None) -> Cost:
    images = sum(run.seen for run in own)
    work = multiply_adds(recipe, classes)
    seconds = seconds_per_image(recipe, classes, work, threads)
    name = f"{recipe.name} at {recipe.resolution} px"
    if recipe.teacher is not None:
        name += ", with its teacher"
    hours = images * seconds / 3600
    precision: Precision = "half" if recipe.precision == "bfloat16" else "single"
    passes = FORWARD_AND_BACKWARD + int(recipe.teacher is not None)
    return Cost(name, len(own), images, passes * images * work, hours, precision)


def cost_lines(costs: Sequence[Cost], workers: int) -> list[str]:
    """For people to read."""
    hours = sum(cost.hours or 0.0 for cost in costs)
    images = sum(cost.images for cost in costs)
    runs = sum(cost.runs for cost in costs)
    return [
        *(cost.as_line() for cost in costs),
        f"in all {runs} trainings, {images:,} images seen, about {duration(hours / workers)} on "
        f"{workers} workers of this machine",
    ]


def multiply_adds(recipe: ClassifierRecipe, classes: int) -> float:
    """Of one image's forward pass, counted without computing it; backward takes twice that."""
    from torch.utils.flop_counter import FlopCounterMode

    from generation.networks.timm_classifier import require_fitting

    with FlopCounterMode(display=False) as counter:
        require_fitting(recipe, classes)
    return float(counter.get_total_flops()) / 2


def seconds_per_image(
    recipe: ClassifierRecipe, classes: int, work: float, threads: int | None
) -> float:
    """Of the bare training step on this machine, by its median over a few steps, or one long one,
    after a first one that warms up."""
    import torch

    from classifiers.training.bare_step import BareStep
    from classifiers.training.loop import training_device
    from generation.training.processes import launched_processes

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    device = training_device(launched_processes())
    probed = PROBE_MULTIPLY_ADDS / PROBE_STEPS / (FORWARD_AND_BACKWARD * work)
    small = probed if device.type == "cpu" else 128
    batch = int(min(recipe.batch, max(2, small)))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        step = BareStep(recipe, classes, device, batch)
        shape = (batch, recipe.channels, recipe.resolution, recipe.resolution)
        images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(classes, (batch,), device=device)
        seconds: list[float] = []
        float(step(images, labels))
        while len(seconds) < PROBE_STEPS and sum(seconds) < PROBE_S:
            started = time.perf_counter()
            float(step(images, labels))
            seconds.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return statistics.median(seconds) / batch
