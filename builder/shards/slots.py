"""The slots of a shard: each tries its attempts in order until one is accepted.

A slot's outcome follows from its own attempts alone, so it does not matter how attempts of many
slots are batched together.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from builder.accept import AcceptRule, Verdict
from builder.planning.image_seeds import image_seed
from builder.planning.plan import StagePlan
from builder.planning.sampling import sample_batch
from builder.shards.stopping import is_stopped, raise_if_stopped
from generation.generator import Generator, ImageBatch
from release.classes.class_list import ClassEntry
from release.images.encoding import encode_image
from release.layout.image_sets import decode

NO_PARENT = "the image it is made from is quarantined"

Encoded = tuple[list[int], Future[list[bytes]]]  # slots, their images


@dataclass(frozen=True)
class Cell:
    """What a slot is to hold: image `index` of a class, made from `parent` (encoded) if given."""

    entry: ClassEntry
    index: int
    prompt: str
    parent_id: str | None = None
    parent: bytes | None = None
    needs_parent: bool = False


@dataclass(frozen=True)
class Rejection:
    """One attempt that was not kept. last: the slot has no more. made: there was an image."""

    slot: int
    attempt: int
    verdict: Verdict
    last: bool
    made: bool = True


@dataclass
class Slots:
    """Slots 0 to count - 1, each with at most `attempts` attempts, and what came of them.

    accepted: the attempt that was kept, by slot. rejections: in no order that means anything.
    """

    count: int
    attempts: int
    accepted: dict[int, int] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = dict.fromkeys(range(self.count), 0)  # slot: the attempt it is at

    def give_up(self, slot: int, reason: str) -> None:
        """Quarantine a slot that cannot even be tried."""
        del self._waiting[slot]
        self.rejections.append(Rejection(slot, 0, Verdict(reason), True, made=False))

    def go_on(self, accepted: Mapping[int, int], rejections: Sequence[Rejection]) -> None:
        """What came of the slots of a shard whose worker was killed."""
        self.accepted.update(accepted)
        self.rejections[:] = rejections
        settled = {*accepted, *(r.slot for r in rejections if r.last)}
        tried = {r.slot: r.attempt + 1 for r in sorted(rejections, key=lambda r: r.attempt)}
        self._waiting = {
            slot: tried.get(slot, 0) for slot in range(self.count) if slot not in settled
        }

    def next_batch(self, size: int) -> list[tuple[int, int]]:
        """At most `size` pairs (slot, attempt), none if all slots are settled.

        When fewer slots wait than the batch has rows, the rows to spare go to the attempts that
        would come next: the batch costs the same, and shards end sooner.
        """
        first = list(self._waiting.items())[:size]
        pairs = (
            (slot, attempt + ahead)
            for ahead in range(self.attempts)
            for slot, attempt in first
            if attempt + ahead < self.attempts
        )
        return [pair for pair, _ in zip(pairs, range(size), strict=False)]

    def settle(
        self, batch: Sequence[tuple[int, int]], verdicts: Sequence[Verdict]
    ) -> Iterator[tuple[int, int]]:
        """Note the verdicts on a batch; yields (row of the batch, slot) of each image kept."""
        for row, ((slot, attempt), verdict) in enumerate(zip(batch, verdicts, strict=True)):
            if self._waiting.get(slot) != attempt:
                continue  # an earlier attempt of this batch settled the slot
            if verdict.reason is None:
                del self._waiting[slot]
                self.accepted[slot] = attempt
                yield row, slot
                continue
            last = attempt + 1 == self.attempts
            self.rejections.append(Rejection(slot, attempt, verdict, last))
            if last:
                del self._waiting[slot]
            else:
                self._waiting[slot] = attempt + 1


class Kept(Protocol):
    """What keeps the work of a shard; see builder/shards/halfway.py."""

    def take_up(self, slots: Slots) -> dict[int, bytes]: ...
    def due(self, *, stopped: bool) -> bool: ...
    def save(self, slots: Slots, images: dict[int, bytes]) -> None: ...


def fill_slots(
    slots: Slots,
    cells: Sequence[Cell],
    release_seed: int,
    stage: StagePlan,
    generator: Generator,
    rule: AcceptRule | None,
    kept: Kept,
) -> dict[int, bytes]:
    """Sample until every slot is settled; the encoded images by slot.

    One batch is encoded in a thread while the next is sampled; at most two are in memory. kept: is
    asked first for what was done before, and gets what is done on the way.
    """
    for slot, cell in enumerate(cells):
        if cell.needs_parent and cell.parent is None:
            slots.give_up(slot, NO_PARENT)
    images = kept.take_up(slots)
    encoding: list[Encoded] = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as pool:
        while batch := slots.next_batch(stage.recipe.batch):
            if kept.due(stopped=is_stopped()):
                while encoding:
                    _collect(images, encoding.pop(0))
                kept.save(slots, images)
            raise_if_stopped()
            pixels, reasons = _sample(batch, cells, release_seed, stage, generator)
            labels = [cells[slot].entry.label for slot, _ in _padded(batch, stage)]
            verdicts = _verdicts(pixels, reasons, labels, rule)[: len(batch)]
            taken = list(slots.settle(batch, verdicts))
            rows, numbers = [row for row, _ in taken], [slot for _, slot in taken]
            encoding.append((numbers, pool.submit(_encode_all, pixels[rows], stage)))
            if len(encoding) > 1:
                _collect(images, encoding.pop(0))
        for encoded in encoding:
            _collect(images, encoded)
    return images


def _padded(batch: list[tuple[int, int]], stage: StagePlan) -> list[tuple[int, int]]:
    """The batch at the stage's fixed size: its last row again and again."""
    return [*batch, *[batch[-1]] * (stage.recipe.batch - len(batch))]


def _sample(
    batch: list[tuple[int, int]],
    cells: Sequence[Cell],
    release_seed: int,
    stage: StagePlan,
    generator: Generator,
) -> tuple[np.ndarray, Sequence[str | None]]:
    """uint8[N,H,W,3] and the generator's own reasons to refuse, N the fixed size of a batch."""
    recipe = stage.recipe
    padded = [(cells[slot], attempt) for slot, attempt in _padded(batch, stage)]
    parents = [decode(cell.parent) for cell, _ in padded if cell.parent is not None]
    rows = ImageBatch(
        prompts=[cell.prompt for cell, _ in padded],
        labels=[cell.entry.label for cell, _ in padded],
        seeds=[
            image_seed(release_seed, recipe.resolution, cell.entry.wnid, cell.index, attempt)
            for cell, attempt in padded
        ],
        parents=np.stack(parents) if parents else None,
        resolution=recipe.resolution,
    )
    sampled = sample_batch(generator, rows, recipe, stage.sampler)
    return sampled.images, sampled.reasons


def _verdicts(
    images: np.ndarray,
    reasons: Sequence[str | None],
    labels: Sequence[int],
    rule: AcceptRule | None,
) -> list[Verdict]:
    """The generator's refusals first, then the rule's; padding is judged too, for its shape."""
    judged = rule.judge(images, labels) if rule else [Verdict()] * len(images)
    return [
        Verdict(reason) if reason is not None else verdict
        for reason, verdict in zip(reasons, judged, strict=True)
    ]


def _encode_all(images: np.ndarray, stage: StagePlan) -> list[bytes]:
    return [encode_image(image, stage.encoding, synthetic=True) for image in images]


def _collect(images: dict[int, bytes], encoded: Encoded) -> None:
    slots, future = encoded
    images.update(zip(slots, future.result(), strict=True))
