"""One shard, from plan to committed file: the task that runs on a worker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from builder.accept import AcceptRule, LocatedRule
from builder.exemplars.images import open_exemplars
from builder.planning.checkpoints import LocatedGuide, load_networks
from builder.planning.gpu_memory import require_memory
from builder.planning.image_seeds import image_id, image_seed
from builder.planning.plan import ShardPlan
from builder.planning.recipe import StageRecipe
from builder.shards.halfway import Halfway
from builder.shards.overlap import beside_next_shard
from builder.shards.rejections import rejected_attempts
from builder.shards.slots import Cell, Slots, fill_slots
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import MODULES, generator_source
from generation.generator import Generator
from release.classes.class_list import ClassEntry
from release.errors import UserError
from release.files.commit import canonical_json
from release.files.storage import ReleasePath
from release.layout.manifest import ShardRecord
from release.layout.parquet import image_features, table_schema, write_table
from release.layout.shard_commit import commit_shard, committed_record
from release.layout.shard_files import read_shard

NO_CHECKPOINT = (  # what our generators' loaders raise for other files and for parts of one
    *(EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(UnpicklingError, SafetensorError),
)
COLUMNS = {
    "class_id": "string",
    "prompt": "string",
    "image_id": "string",
    "parent_image_id": "string",
    "seed": "int64",
    "index": "int32",
    "attempt": "int16",
    "generator": "string",
    "checkpoint_sha256": "string",
    "sampler": "string",
}
GUIDE_COLUMN = {"guide_sha256": "string"}  # of stages that a second network guides
EXEMPLAR_COLUMN = {"exemplar_image_id": "string"}  # of stages that begin from real images


@dataclass(frozen=True)
class ShardJob:
    """A shard and where things are: what a worker needs, small enough to send."""

    plan: ShardPlan
    release_seed: int
    classes: tuple[ClassEntry, ...]
    checkpoint: Path
    release: ReleasePath

    @property
    def path(self) -> str:
        return self.plan.path

    @property
    def fingerprint(self) -> str:
        return self.plan.stage.fingerprint

    @property
    def planned(self) -> int:
        return self.plan.block.rows

    @property
    def after(self) -> str | None:
        return self.plan.parent_path

    @property
    def priority(self) -> int:
        """Earlier stages first: a worker then swaps models once, not once a shard."""
        return -self.plan.stage.recipe.resolution

    def committed(self) -> ShardRecord | None:
        """The record of the shard if it is finished."""
        return committed_record(self.release, self)

    def run(self) -> ShardRecord:
        """Make the shard and commit it."""
        return build_shard(self)


def build_shard(job: ShardJob) -> ShardRecord:
    """Make the shard and commit it: every planned slot is written or quarantined."""
    started = time.time()
    stage = job.plan.stage
    # sampler and start decide no weights: stages that differ in them alone share the loaded model
    model = stage.recipe.model_copy(update={"sampler": SamplerConfig(), "exemplars": None})
    generator = load_generator(model, job.checkpoint, stage.checkpoint_sha256, stage.guide)
    rule = load_rule(stage.rule) if stage.rule else None
    cells = _cells(job)
    slots = Slots(len(cells), stage.attempts)
    halfway = Halfway.of(job.release, job.plan, job.release_seed, cells)
    images = fill_slots(slots, cells, job.release_seed, stage, generator, rule, halfway)
    with beside_next_shard():
        record = _write_shard(job, cells, slots, images, started - halfway.seconds)
        halfway.forget()
        return record


def _write_shard(
    job: ShardJob, cells: Sequence[Cell], slots: Slots, images: dict[int, bytes], started: float
) -> ShardRecord:
    """Commit the shard: `images`, encoded, by slot, and what `slots` says of the others."""
    stage = job.plan.stage
    written = sorted(images)
    rows = [_row(job, cells[slot], slots.accepted[slot]) for slot in written]
    features = image_features(job.classes, columns_of(stage.recipe))
    columns: dict[str, list[Any]] = {
        name: [row[name] for row in rows] for name in features if name != "image"
    }
    columns["image"] = [images[slot] for slot in written]
    schema = table_schema(features, job.classes)
    rejections = rejected_attempts(slots.rejections, cells, job.release_seed, stage)
    empty = sum(rejections.quarantined.values()) if rejections else 0
    if len(written) + empty != len(cells):
        raise RuntimeError(f"{len(cells)} planned, {len(written)} written, {empty} quarantined")
    return commit_shard(
        job.release,
        job.path,
        stage.fingerprint,
        lambda sink: write_table(sink, schema, columns, stage.format),
        columns["class_id"],
        started,
        rejections,
    )


def columns_of(stage: StageRecipe) -> dict[str, str]:
    """Of its rows, beside image and label."""
    guide = {} if stage.guide is None else GUIDE_COLUMN
    return COLUMNS | guide | ({} if stage.exemplars is None else EXEMPLAR_COLUMN)


@lru_cache(maxsize=1)  # a worker holds one stage's model at a time
def load_generator(
    stage: StageRecipe, checkpoint: Path, sha256: str, guide: LocatedGuide | None = None
) -> Generator:
    """The model, loaded once a process; a changed checkpoint is refused, not mixed in."""
    source = generator_source(stage.generator)
    planned = {checkpoint: sha256} | ({} if guide is None else {guide.place: guide.sha256})
    for place, wanted in planned.items():
        if source.sha256(place) != wanted:
            raise UserError(f"checkpoint {place} was changed after the build was planned")
    require_memory([stage])
    try:
        return load_networks(stage, checkpoint, None if guide is None else guide.place)
    except NO_CHECKPOINT as error:
        if stage.generator not in MODULES:  # its author needs the traceback
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"checkpoint {stage.checkpoint} cannot be loaded as {stage.generator}: {reason}"
        ) from None


@lru_cache(maxsize=1)
def load_rule(rule: LocatedRule) -> AcceptRule:
    """The stage's accept rule, loaded once a process."""
    return rule.load()


def _cells(job: ShardJob) -> list[Cell]:
    """The slots of the block, with the images they are made from: parents, or exemplars."""
    block = job.plan.block
    cells = [(entry, index, block.prompts.of(entry, index)) for entry, index in block.cells()]
    if job.plan.stage.exemplars is not None:
        found = open_exemplars(job.plan.stage.exemplars)
        begun = found.of([(entry.wnid, index) for entry, index, _ in cells])
        return [Cell(*cell, exemplar=one) for cell, one in zip(cells, begun, strict=True)]
    if job.plan.parent_path is None:
        return [Cell(*cell) for cell in cells]
    columns = ["class_id", "index", "image_id", "image"]
    table = read_shard(job.release / job.plan.parent_path, columns)
    keys = zip(table["class_id"].to_pylist(), table["index"].to_pylist(), strict=True)
    chunks = table["image"].chunks  # joined, they may be more than an array of bytes holds, 2 GiB
    data = [image for chunk in chunks for image in chunk.field("bytes").to_pylist()]
    parents = dict(zip(keys, zip(table["image_id"].to_pylist(), data, strict=True), strict=True))
    absent = (None, None)
    return [
        Cell(entry, index, prompt, *parents.get((entry.wnid, index), absent), needs_parent=True)
        for entry, index, prompt in cells
    ]


def _row(job: ShardJob, cell: Cell, attempt: int) -> dict[str, Any]:
    """Every column but the image."""
    stage = job.plan.stage
    identity = (job.release_seed, stage.recipe.resolution, cell.entry.wnid, cell.index, attempt)
    guide = {} if stage.guide is None else {"guide_sha256": stage.guide.sha256}
    begun = {} if cell.exemplar is None else {"exemplar_image_id": cell.exemplar.image_id}
    return {
        "label": cell.entry.label,
        "class_id": cell.entry.wnid,
        "prompt": cell.prompt,
        "image_id": image_id(*identity),
        "parent_image_id": cell.parent_id or "",  # no null: torch's DataLoader collates none
        "seed": image_seed(*identity),
        "index": cell.index,
        "attempt": attempt,
        "generator": stage.recipe.generator,
        "checkpoint_sha256": stage.checkpoint_sha256,
        "sampler": canonical_json(stage.recipe.sampler.model_dump()),
        **guide,
        **begun,
    }
