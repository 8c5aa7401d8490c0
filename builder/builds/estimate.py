"""What a build will take, before anything is spent: images, shards, bytes, worker-hours.

Where a stage's model is at hand, a calibration batch is sampled, encoded, timed and thrown away;
else the recipe's stated cost stands in, or what the networks' arithmetic takes of a GPU, named as
such; else the time is unknown.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder.cluster.worker import use_one_thread
from builder.planning.checkpoints import (
    load_networks,
    locate_guides,
    require_precision_here,
    require_prompts,
)
from builder.planning.device_cost import DeviceCost, stated_cost
from builder.planning.image_seeds import image_seed
from builder.planning.plan import ShardPlan, stage_encodings
from builder.planning.prompts import choose_prompts
from builder.planning.recipe import Recipe, StageRecipe
from builder.planning.sampling import require_sizes, sample_batch
from generation.families import generator_source
from generation.generator import Exemplars, ImageBatch
from release.classes.class_list import ClassEntry
from release.environment import device_kind
from release.errors import UserError
from release.files.storage import ReleasePath, read_files
from release.images.encoding import encode_image
from release.layout.manifest import ShardRecord
from release.layout.shard_commit import sidecar_name

WARM_SECONDS = 20  # a first batch quicker than this is repeated warm: it also paid for warming up

# Bytes a pixel of photographs, measured at 256 and 1024 px; other images differ.
BYTES_A_PIXEL = {"webp-lossless": 2.0, "png": 2.3, "jpeg": 0.9}


@dataclass(frozen=True)
class ImageCost:
    """One image of a stage: seconds of one worker (None: unknown), bytes, and how that is known."""

    seconds: float | None
    bytes: float
    basis: str


@dataclass(frozen=True)
class StageEstimate:
    """What one stage still has to make, and what an image of it takes."""

    resolution: int
    images: int
    shards: int
    cost: ImageCost

    @property
    def worker_hours(self) -> float | None:
        return None if self.cost.seconds is None else self.images * self.cost.seconds / 3600

    @property
    def bytes(self) -> float:
        return self.images * self.cost.bytes


def estimate(shards: Sequence[ShardPlan], costs: Mapping[int, ImageCost]) -> list[StageEstimate]:
    """One for each resolution of `costs`, in its order; `shards`: those still to be made."""
    return [
        StageEstimate(
            resolution=resolution,
            images=sum(s.block.rows for s in shards if s.stage.recipe.resolution == resolution),
            shards=sum(s.stage.recipe.resolution == resolution for s in shards),
            cost=cost,
        )
        for resolution, cost in costs.items()
    ]


def total_hours(stages: Sequence[StageEstimate]) -> float | None:
    """Worker-hours of all stages; None if those of one are unknown."""
    hours = [stage.worker_hours for stage in stages]
    return None if None in hours else sum(h for h in hours if h is not None)


def unmeasured_cost(
    stage: StageRecipe, encoding: str, cost: DeviceCost | None, otherwise: str
) -> ImageCost:
    """What the recipe states or what was counted; without either the time is unknown for the reason
    `otherwise`."""
    size = BYTES_A_PIXEL[encoding] * stage.resolution**2
    if cost is None:
        return ImageCost(None, size, f"time unknown: {otherwise}; bytes as photographs take")
    known = "stated by the recipe" if cost.work is None else "counted"
    basis = f"{known} for {cost.hardware}; bytes as photographs take"
    return ImageCost(cost.seconds, size, basis)


def measured_cost(release: ReleasePath, made: Sequence[ShardRecord]) -> ImageCost | None:
    """What finished shards took, by their sidecars; None if none can tell."""
    seconds = images = size = 0.0
    names = {sidecar_name(record.path): record for record in made}
    for name, content in read_files(release, names).items():
        taken = _seconds(content)
        if taken is None:
            continue
        seconds += taken
        images += names[name].rows
        size += names[name].bytes
    if not images:
        return None
    return ImageCost(seconds / images, size / images, f"as its {images:,.0f} finished images took")


def _seconds(sidecar: bytes) -> float | None:
    """What the shard took; None where its sidecar does not say so."""
    try:
        taken = json.loads(sidecar)["seconds"]
    except (ValueError, KeyError, TypeError):
        return None
    return taken if isinstance(taken, int | float) and 0 <= taken < float("inf") else None


def calibrate(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    wanted: Sequence[ClassEntry],
    say: Callable[[str], None],
    cost_of: Callable[[StageRecipe], DeviceCost | None] = stated_cost,
) -> dict[int, ImageCost]:
    """Cost of an image at each resolution, one worker: measured where the model is at hand, else
    as `cost_of` knows it.

    UserError, before anything is loaded, if a stage's model cannot make images of its size, or
    never learned a prompt.
    """
    found = [_at_hand(stage) for stage in chain]
    folders = [place if isinstance(place, Path) else None for place in found]
    require_sizes(chain, folders)
    prompts = choose_prompts(recipe.prompts, recipe.seed, wanted)
    require_prompts(chain, folders, prompts.of_all(wanted))
    costs: dict[int, ImageCost] = {}
    parents: np.ndarray | None = None
    for position, (stage, encoding, folder) in enumerate(
        zip(chain, stage_encodings(recipe, chain), found, strict=True)
    ):
        if position and parents is None:  # the parent's model is not at hand: time depends on shape
            side = chain[position - 1].resolution
            parents = np.full((stage.batch, side, side, 3), 128, np.uint8)
        if isinstance(folder, UserError):
            reason = f"no batch of it can be sampled here ({folder})"
            costs[stage.resolution] = unmeasured_cost(stage, encoding, cost_of(stage), reason)
            parents = None
            continue
        say(f"calibrating {stage.resolution} px: one batch of {stage.batch}, thrown away")
        cost, parents = _sample_a_batch(recipe, stage, encoding, folder, wanted, parents)
        costs[stage.resolution] = cost
    return costs


def _at_hand(stage: StageRecipe) -> Path | UserError:
    """Where the stage's model is, or why it or its guide is nowhere, or cannot run here."""
    try:
        require_precision_here([stage])
        place, *_ = map(generator_source(stage.generator).locate, stage.checkpoints)
        return place
    except UserError as error:
        return error


def _sample_a_batch(
    recipe: Recipe,
    stage: StageRecipe,
    encoding: str,
    folder: Path,
    wanted: Sequence[ClassEntry],
    parents: np.ndarray | None,
) -> tuple[ImageCost, np.ndarray]:
    use_one_thread()
    (guide,) = locate_guides([stage], [folder])
    generator = load_networks(stage, folder, None if guide is None else guide.place)
    use_one_thread()  # loading imported torch
    entries = [wanted[i % len(wanted)] for i in range(stage.batch)]
    repeated = None if parents is None else parents[np.arange(stage.batch) % len(parents)]
    prompts = choose_prompts(recipe.prompts, recipe.seed, wanted)
    batch = ImageBatch(
        prompts=[prompts.of(entry, i) for i, entry in enumerate(entries)],
        labels=[entry.label for entry in entries],
        seeds=[
            image_seed(recipe.seed, stage.resolution, entry.wnid, i, 0)
            for i, entry in enumerate(entries)
        ],
        parents=repeated,
        resolution=stage.resolution,
        exemplars=_grey_exemplars(stage),
    )
    seconds = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        images = sample_batch(generator, batch, stage, stage.sampler).images
        seconds = min(seconds, time.perf_counter() - started)
        if seconds > WARM_SECONDS and not stage.compile:  # compiling is paid once, not a batch
            break
    started = time.perf_counter()
    encoded = [encode_image(i, encoding, synthetic=True) for i in images]
    # Encoding runs beside sampling, so an image takes the longer of the two
    seconds = max(seconds, time.perf_counter() - started)
    size = sum(map(len, encoded)) / stage.batch
    basis = f"measured here: a batch of {stage.batch} on one worker, {device_kind()}"
    return ImageCost(seconds / stage.batch, size, basis), images


def _grey_exemplars(stage: StageRecipe) -> Exemplars | None:
    """Where it begins from any: their release may not be at hand, and time depends on shape."""
    if stage.exemplars is None:
        return None
    side = stage.resolution
    grey = np.full((stage.batch, side, side, 3), 128, np.uint8)
    return Exemplars(grey, stage.exemplars.strength)


def as_json(stages: Sequence[StageEstimate]) -> list[dict[str, Any]]:
    """For --json."""
    return [
        {
            "resolution": stage.resolution,
            "images_to_make": stage.images,
            "shards_to_make": stage.shards,
            "bytes": round(stage.bytes),
            "worker_hours": stage.worker_hours,
            "seconds_per_image": stage.cost.seconds,
            "basis": stage.cost.basis,
        }
        for stage in stages
    ]


def as_lines(stages: Sequence[StageEstimate]) -> list[str]:
    """For people."""
    lines = [
        f"{stage.resolution} px: {stage.images:,} images in {stage.shards:,} files, "
        f"{_size(stage.bytes)}, {_hours(stage.worker_hours)} ({stage.cost.basis})"
        for stage in stages
    ]
    files = sum(stage.shards for stage in stages)
    size = _size(sum(stage.bytes for stage in stages))
    return [*lines, f"in all: {files:,} files, {size}, {_hours(total_hours(stages))}"]


def _hours(hours: float | None) -> str:
    if hours is None:
        return "worker-hours unknown"
    return f"{hours:,.1f} worker-hours" if hours >= 1 else f"{hours * 60:.2g} worker-minutes"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
