"""Making single images of a release again, from their rows, and comparing them with the stored."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from builder.builds.planned import planned_release
from builder.cluster.cluster import ONE_THREAD
from builder.exemplars.images import Exemplar, open_exemplars
from builder.planning.checkpoints import LocatedGuide, locate_checkpoints, locate_guides
from builder.planning.plan import ShardPlan, StagePlan
from builder.planning.recipe import StageRecipe
from builder.planning.sampling import sample_batch
from builder.shards.shard import load_generator
from builder.shards.slots import begun_from
from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch
from release.commands.terminal import printable
from release.environment import Environment, own_environment
from release.errors import UserError
from release.files.names import within
from release.files.storage import ReleasePath
from release.images.encoding import encode_image
from release.layout.image_sets import decode
from release.layout.manifest import Manifest
from release.layout.shard_commit import read_marker_content
from release.layout.shard_files import flat_path, read_shard

IMAGE_ID = re.compile(r"s\d+-r(?P<resolution>\d+)-(?P<wnid>.+)-(?P<index>\d{6,})-\d+")
GAP = 2  # pixels between the two images of a pair


@dataclass(frozen=True)
class StoredImage:
    """One row of a shard and the plan of that shard."""

    plan: ShardPlan
    row: dict[str, Any]

    @property
    def image_id(self) -> str:
        return str(self.row["image_id"])

    @property
    def content(self) -> bytes:
        return bytes(self.row["image"]["bytes"])


@dataclass(frozen=True)
class Comparison:
    """A stored image beside the one made again.

    largest_difference: of any value, in levels of 255. environment: the first thing the shard was
    made with otherwise than this process, None if nothing.
    """

    image_id: str
    stored: np.ndarray
    again: np.ndarray
    same_bytes: bool
    environment: str | None

    @property
    def largest_difference(self) -> int:
        return int(np.abs(self.stored.astype(int) - self.again.astype(int)).max())

    @property
    def same_pixels(self) -> bool:
        return self.largest_difference == 0

    def __str__(self) -> str:
        name = printable(self.image_id)
        if self.same_bytes:
            return f"{name}: the same bytes"
        if self.same_pixels:
            return f"{name}: the same pixels, other bytes"
        share = float((self.stored != self.again).any(axis=-1).mean())
        return (
            f"{name}: other pixels, {share:.1%} of them, by at most "
            f"{self.largest_difference} of 255 levels"
        )

    def write_pair(self, folder: Path) -> None:
        """A PNG: the stored image on the left, the one made again on the right."""
        gap = np.full((len(self.stored), GAP, 3), 255, dtype=np.uint8)
        pair = np.concatenate([self.stored, gap, self.again], axis=1)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pair).save(within(folder, f"{self.image_id}.png"))


class Release:
    """A synthetic release whose images can be found and made again."""

    def __init__(self, release: ReleasePath, manifest: Manifest) -> None:
        if manifest.kind == "real":
            raise UserError(f"{release} holds real images: nothing made them")
        # As in the builder's workers: with more threads a last bit may differ.
        os.environ.update({name: str(value) for name, value in ONE_THREAD.items()})
        self._release = release
        self._planned = planned_release(manifest)
        listed = {flat_path(record.path) for record in manifest.shards}
        self._places = {flat_path(record.path): record.path for record in manifest.shards}
        self._plans = [plan for plan in self._planned.shards if plan.path in listed]
        self._rows = {flat_path(record.path): record.rows for record in manifest.shards}

    def find(self, image_id: str) -> StoredImage:
        """The image of that name; UserError if there is none."""
        name = IMAGE_ID.fullmatch(image_id)
        if name is not None:
            resolution, index = int(name["resolution"]), int(name["index"])
            for plan in self._plans:
                block = plan.block
                if (
                    plan.stage.recipe.resolution == resolution
                    and block.start <= index < block.stop
                    and name["wnid"] in {entry.wnid for entry in block.classes}
                ):
                    found = self._read(plan, image_id)
                    if found:
                        return found[0]
        example = self._read(self._plans[0])[0].image_id if self._plans else "none"
        raise UserError(f"{self._release} has no image {image_id!r}; its names are as {example}")

    def draw(self, count: int, seed: int, *, last_stage: bool) -> list[StoredImage]:
        """`count` images at random, each at most once; of every stage, or of the last alone."""
        highest = max(stage.recipe.resolution for stage in self._planned.stages)
        plans = [p for p in self._plans if not last_stage or p.stage.recipe.resolution == highest]
        starts = np.cumsum([0, *(self._rows[plan.path] for plan in plans)])
        total = int(starts[-1])
        if count > total:
            of = f" of {highest} px" if last_stage else ""
            raise UserError(f"--sample {count}: {self._release} has {total:,} images{of}")
        chosen = np.random.default_rng(seed).choice(total, count, replace=False)
        found = []
        shards = np.searchsorted(starts, np.sort(chosen), side="right") - 1
        for shard in dict.fromkeys(shards.tolist()):
            images = self._read(plans[shard])
            if len(images) != self._rows[plans[shard].path]:
                raise UserError(
                    f"{self._release / plans[shard].path} has {len(images)} rows, the manifest "
                    f"says {self._rows[plans[shard].path]}: see `release verify`"
                )
            rows = np.sort(chosen)[shards == shard] - starts[shard]
            found += [images[row] for row in rows]
        return found

    def with_ancestors(self, images: Iterable[StoredImage]) -> list[StoredImage]:
        """The images and all they were made from, each once."""
        found: dict[str, StoredImage] = {}
        waiting = list(images)
        while waiting:
            image = waiting.pop()
            found[image.image_id] = image
            parent = image.row["parent_image_id"]
            if parent and parent not in found:  # a first stage has "", before it had null
                waiting.append(self.find(parent))
        return list(found.values())

    def reproduce(self, images: Iterable[StoredImage]) -> Iterator[Comparison]:
        """Make the images again in batches of their stages, the base first.

        Each comes from its parent as made again if that is among them, else as stored.
        """
        again: dict[str, np.ndarray] = {}
        for batch in _batches(images):
            parents = [again.get(image.row["parent_image_id"]) for image in batch]
            stored = [
                self._stored_parent(image) if parent is None else parent
                for image, parent in zip(batch, parents, strict=True)
            ]
            for image, pixels in zip(batch, _sample(batch, stored), strict=True):
                comparison = self._compare(image, pixels)
                again[image.image_id] = comparison.again
                yield comparison

    def _stored_parent(self, image: StoredImage) -> np.ndarray | None:
        parent = image.row["parent_image_id"]
        return decode(self.find(parent).content) if parent else None

    def _compare(self, image: StoredImage, pixels: np.ndarray) -> Comparison:
        content = encode_image(pixels, image.plan.stage.encoding, synthetic=True)
        return Comparison(
            image_id=image.image_id,
            stored=decode(image.content),
            again=decode(content),  # as stored: a JPEG's pixels are not the sampled ones
            same_bytes=content == image.content,
            environment=self._difference(image.plan.path),
        )

    def _read(self, plan: ShardPlan, image_id: str | None = None) -> list[StoredImage]:
        table = read_shard(self._release / self._places[plan.path])
        if image_id is not None:
            table = table.filter(pc.equal(table["image_id"], image_id))
        return [StoredImage(plan, row) for row in table.to_pylist()]

    def _difference(self, shard: str) -> str | None:
        """What the shard was made with, where this process has something else."""
        try:
            marker = json.loads(read_marker_content(self._release, self._places[shard]) or b"")
            versions = marker["versions"]
            made = Environment(
                marker["device"],
                tuple((name, versions[name]) for name, _ in own_environment().versions),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown versions: its marker cannot be read"
        return own_environment().difference(made)


def _batches(images: Iterable[StoredImage]) -> Iterator[list[StoredImage]]:
    """Images that one call of a generator can make, lower resolutions before higher ones."""

    def settings(image: StoredImage) -> tuple[int, str, str]:
        stage, row = image.plan.stage.recipe, image.row
        guide = row.get("guide_sha256", "")
        return stage.resolution, f"{row['checkpoint_sha256']} {guide}", row["sampler"]

    for _, group in groupby(sorted(images, key=settings), key=settings):
        alike = list(group)
        size = alike[0].plan.stage.recipe.batch
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _sample(images: list[StoredImage], parents: list[np.ndarray | None]) -> list[np.ndarray]:
    """uint8[H,W,3] of each image from its row alone, in one batch of the stage's fixed size."""
    stage, row = images[0].plan.stage, images[0].row
    generator = load_generator(stage.recipe, *_networks(stage.recipe, row))
    padded = [i % len(images) for i in range(stage.recipe.batch)]
    of_rows = [images[i].row for i in padded]
    known = [parent for parent in parents if parent is not None]
    batch = ImageBatch(
        prompts=[row["prompt"] for row in of_rows],
        labels=[row["label"] for row in of_rows],
        seeds=[row["seed"] for row in of_rows],
        parents=np.stack([known[i] for i in padded]) if known else None,
        resolution=stage.recipe.resolution,
        exemplars=begun_from(stage, _exemplars(stage, of_rows)),
    )
    settings = SamplerConfig.model_validate_json(row["sampler"])
    sampled = sample_batch(generator, batch, stage.recipe, settings)
    return list(sampled.images[: len(images)])


def _exemplars(stage: StagePlan, rows: list[dict[str, Any]]) -> list[Exemplar]:
    """The real images that the rows name; none where the stage began from noise.

    UserError where their release is not at hand as it was.
    """
    if stage.exemplars is None:
        return []
    return open_exemplars(stage.exemplars).named([row["exemplar_image_id"] for row in rows])


def _networks(stage: StageRecipe, row: Mapping[str, Any]) -> tuple[Path, str, LocatedGuide | None]:
    """The checkpoint with its hash, and its guide, as the row names them."""
    (folder,), (found,) = locate_checkpoints([stage])
    (guide,) = locate_guides([stage], [folder])
    _require_hash(stage.checkpoint, found, row["checkpoint_sha256"])
    if stage.guide is not None and guide is not None:
        _require_hash(stage.guide.checkpoint, guide.sha256, row["guide_sha256"])
    return folder, found, guide


def _require_hash(checkpoint: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise UserError(
            f"checkpoint {checkpoint} here is {found[:12]}…, the image was made "
            f"with {wanted[:12]}…: put that one in its place"
        )
