"""One shard, from plan to committed file: the task that runs on a worker."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from builder.commit import canonical_json
from builder.encode import encode_image
from builder.gpu_memory import require_memory
from builder.manifest import ShardRecord
from builder.markers import commit_shard, committed_record
from builder.parquet import encode_table, image_features, table_schema
from builder.plan import ShardPlan, StagePlan, image_id, image_seed
from builder.recipe import StageRecipe
from builder.stopping import raise_if_stopped
from generation.classes import ClassEntry
from generation.errors import UserError
from generation.generators import Generator, ImageBatch, generator_source
from generation.image_sets import decode
from generation.sampler_config import SamplerConfig

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


@dataclass(frozen=True)
class ShardJob:
    """A shard and where things are: what a worker needs, small enough to send."""

    plan: ShardPlan
    release_seed: int
    classes: tuple[ClassEntry, ...]
    checkpoint: Path
    release: Path

    @property
    def path(self) -> str:
        return self.plan.path

    @property
    def after(self) -> str | None:
        return self.plan.parent_path

    @property
    def priority(self) -> int:
        """Earlier stages first: a worker then swaps models once, not once a shard."""
        return -self.plan.stage.recipe.resolution

    def committed(self) -> ShardRecord | None:
        """The record of the shard if it is finished."""
        fingerprint, rows = self.plan.stage.fingerprint, self.plan.block.rows
        return committed_record(self.release, self.path, fingerprint, rows)

    def run(self) -> ShardRecord:
        """Make the shard and commit it."""
        return build_shard(self)


def build_shard(job: ShardJob) -> ShardRecord:
    """Make the shard and commit it."""
    started = time.time()
    stage = job.plan.stage
    # the sampler decides no weights: stages that differ in it alone share the loaded model
    model = stage.recipe.model_copy(update={"sampler": SamplerConfig()})
    generator = load_generator(model, job.checkpoint, stage.checkpoint_sha256)
    rows = _rows(job)
    images = _sample_and_encode(job, generator, rows)
    features = image_features(job.classes, COLUMNS)
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    content = encode_table(table_schema(features, job.classes), {**columns, "image": images})
    return commit_shard(
        job.release, job.path, stage.fingerprint, content, columns["class_id"], started
    )


@lru_cache(maxsize=1)  # a worker holds one stage's model at a time
def load_generator(stage: StageRecipe, checkpoint: Path, sha256: str) -> Generator:
    """The model, loaded once a process; a changed checkpoint is refused, not mixed in."""
    source = generator_source(stage.generator)
    if source.sha256(checkpoint) != sha256:
        raise UserError(f"checkpoint {checkpoint} was changed after the build was planned")
    require_memory([stage])
    return source.load(checkpoint, stage.compile)


def _rows(job: ShardJob) -> list[dict[str, Any]]:
    """Every column but the image, a row for each image of the block."""
    stage = job.plan.stage
    resolution = stage.recipe.resolution
    constant = {
        "attempt": 0,
        "generator": stage.recipe.generator,
        "checkpoint_sha256": stage.checkpoint_sha256,
        "sampler": canonical_json(stage.recipe.sampler.model_dump()),
    }
    parents = _parent_ids(job)
    return [
        {
            "label": entry.label,
            "class_id": entry.wnid,
            "prompt": entry.prompt,
            "image_id": image_id(job.release_seed, resolution, entry.wnid, index, 0),
            "parent_image_id": parent,
            "seed": image_seed(job.release_seed, resolution, entry.wnid, index, 0),
            "index": index,
            **constant,
        }
        for (entry, index), parent in zip(job.plan.block.cells(), parents, strict=True)
    ]


def _parent_ids(job: ShardJob) -> list[str | None]:
    if job.plan.parent_path is None:
        return [None] * job.plan.block.rows
    return _read_parent(job, "image_id").to_pylist()  # type: ignore[no-any-return]


def _read_parent(job: ShardJob, column: str) -> Any:
    assert job.plan.parent_path is not None
    return pq.read_table(job.release / job.plan.parent_path, columns=[column])[column]


def _sample_and_encode(
    job: ShardJob, generator: Generator, rows: list[dict[str, Any]]
) -> list[bytes]:
    """Encode one batch in threads while the next is sampled; at most two batches in memory."""
    encoded: list[bytes] = []
    waiting: list[Future[list[bytes]]] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as pool:
        for images in _sampled_batches(job, generator, rows):
            waiting.append(pool.submit(_encode_all, images, job.plan.stage))
            if len(waiting) > 1:
                encoded += waiting.pop(0).result()
        for future in waiting:
            encoded += future.result()
    return encoded


def _encode_all(images: np.ndarray, stage: StagePlan) -> list[bytes]:
    return [encode_image(image, stage.encoding, synthetic=True) for image in images]


def _sampled_batches(
    job: ShardJob, generator: Generator, rows: list[dict[str, Any]]
) -> Iterator[np.ndarray]:
    """uint8[n,H,W,3] a batch. The last batch is padded to the fixed shape, then cut."""
    stage = job.plan.stage.recipe
    parents = _parent_bytes(job)
    for first in range(0, len(rows), stage.batch):
        raise_if_stopped()
        numbers = range(len(rows))[first : first + stage.batch]
        padded = [*numbers, *[numbers[-1]] * (stage.batch - len(numbers))]
        batch = ImageBatch(
            prompts=[rows[i]["prompt"] for i in padded],
            labels=[rows[i]["label"] for i in padded],
            seeds=[rows[i]["seed"] for i in padded],
            parents=None if parents is None else np.stack([decode(parents[i]) for i in padded]),
            resolution=stage.resolution,
        )
        images = generator.sample(batch, stage.sampler)
        wanted = (stage.batch, stage.resolution, stage.resolution, 3)
        if images.shape != wanted:
            raise UserError(
                f"checkpoint {stage.checkpoint} makes images of {images.shape[1]} px, its stage in "
                f"the recipe has resolution {stage.resolution}"
            )
        yield images[: len(numbers)]


def _parent_bytes(job: ShardJob) -> list[bytes] | None:
    if job.plan.parent_path is None:
        return None
    images = _read_parent(job, "image").combine_chunks()
    return images.field("bytes").to_pylist()  # type: ignore[no-any-return]
