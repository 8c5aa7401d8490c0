"""The slots of a shard: each tries its attempts in order until one is accepted.

A slot's outcome follows from its own attempts alone, so it does not matter how attempts of many
slots are batched together. A generator that decodes beside sampling is asked for the next batch
before its images of the one before are taken: of slots that were not in that one.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from builder.accept import AcceptRule, Verdict
from builder.exemplars.images import Exemplar
from builder.planning.image_seeds import image_seed
from builder.planning.plan import StagePlan
from builder.planning.sampling import begin_batch, decodes_beside
from builder.shards.stopping import is_stopped, raise_if_stopped
from generation.generator import Exemplars, Generator, ImageBatch, Screened
from release.classes.class_list import ClassEntry
from release.images.encoding import encode_image
from release.layout.image_sets import decode

NO_PARENT = "the image it is made from is quarantined"

Pairs = list[tuple[int, int]]  # slots and attempts of a batch
Begun = tuple[Pairs, Callable[[], Screened]]  # and their images, once they are decoded
Encoded = tuple[list[int], Future[list[bytes]]]  # slots, their images


@dataclass(frozen=True)
class Cell:
    """What a slot is to hold: image `index` of a class, made from `parent` (encoded) if given, or
    begun from `exemplar`."""

    entry: ClassEntry
    index: int
    prompt: str
    parent_id: str | None = None
    parent: bytes | None = None
    needs_parent: bool = False
    exemplar: Exemplar | None = None


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

    @property
    def settled(self) -> bool:
        """Whether none is left to be tried."""
        return not self._waiting

    def next_batch(self, size: int, but: Collection[int] = ()) -> Pairs:
        """At most `size` pairs (slot, attempt), none if all slots are settled.

        but: slots in batches that are not settled yet, and so in no other.
        When fewer slots wait than the batch has rows, the rows to spare go to the attempts that
        would come next: the batch costs the same, and shards end sooner.
        """
        first = [pair for pair in self._waiting.items() if pair[0] not in but][:size]
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

    One batch is encoded in a thread while the next is sampled; at most two are in memory, three
    where one is decoded as well meanwhile. kept: is asked first for what was done before, and gets
    what is done on the way.
    """
    for slot, cell in enumerate(cells):
        if cell.needs_parent and cell.parent is None:
            slots.give_up(slot, NO_PARENT)
    images = kept.take_up(slots)
    ahead = int(decodes_beside(generator))  # batches that are begun before one is taken
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as pool:
        under_way = _UnderWay(slots, cells, release_seed, stage, generator, rule, images, pool)
        while not slots.settled:
            if kept.due(stopped=is_stopped()):
                under_way.finish()
                if slots.settled:
                    break
                kept.save(slots, images)
            raise_if_stopped()
            batch = slots.next_batch(stage.recipe.batch, under_way.slots_begun)
            if batch:
                under_way.begin(batch)
            if not batch or len(under_way.begun) > ahead:
                under_way.take()
        under_way.finish()
    return images


@dataclass
class _UnderWay:
    """Batches on their way into `images`, encoded, by slot: begun; then taken, which is judged and
    given to the encoder; then collected."""

    slots: Slots
    cells: Sequence[Cell]
    release_seed: int
    stage: StagePlan
    generator: Generator
    rule: AcceptRule | None
    images: dict[int, bytes]
    encoder: ThreadPoolExecutor
    begun: deque[Begun] = field(default_factory=deque)
    encoding: deque[Encoded] = field(default_factory=deque)

    @property
    def slots_begun(self) -> set[int]:
        """Of batches that are not judged yet."""
        return {slot for batch, _ in self.begun for slot, _ in batch}

    def begin(self, batch: Pairs) -> None:
        """Sample it."""
        stage = self.stage
        rows = _rows(_padded(batch, stage), self.cells, self.release_seed, stage)
        self.begun.append((batch, begin_batch(self.generator, rows, stage.recipe, stage.sampler)))

    def take(self) -> None:
        """The batch that was begun first, as soon as it is decoded."""
        if not self.begun:
            return
        batch, sampled = self.begun.popleft()
        labels = [self.cells[slot].entry.label for slot, _ in _padded(batch, self.stage)]
        found = sampled()
        verdicts = _verdicts(found, labels, self.rule)[: len(batch)]
        taken = list(self.slots.settle(batch, verdicts))
        rows, numbers = [row for row, _ in taken], [slot for _, slot in taken]
        encoded = self.encoder.submit(_encode_all, found.images[rows], self.stage)
        self.encoding.append((numbers, encoded))
        self._collect(but=1)

    def finish(self) -> None:
        """All that is under way."""
        while self.begun:
            self.take()
        self._collect(but=0)

    def _collect(self, but: int) -> None:
        """What is encoded of all batches but so many."""
        while len(self.encoding) > but:
            slots, future = self.encoding.popleft()
            self.images.update(zip(slots, future.result(), strict=True))


def _padded(batch: Pairs, stage: StagePlan) -> Pairs:
    """The batch at the stage's fixed size: its last row again and again."""
    return [*batch, *[batch[-1]] * (stage.recipe.batch - len(batch))]


def _rows(pairs: Pairs, cells: Sequence[Cell], release_seed: int, stage: StagePlan) -> ImageBatch:
    """As a generator is asked for them."""
    recipe = stage.recipe
    attempted = [(cells[slot], attempt) for slot, attempt in pairs]
    parents = [decode(cell.parent) for cell, _ in attempted if cell.parent is not None]
    return ImageBatch(
        prompts=[cell.prompt for cell, _ in attempted],
        labels=[cell.entry.label for cell, _ in attempted],
        seeds=[
            image_seed(release_seed, recipe.resolution, cell.entry.wnid, cell.index, attempt)
            for cell, attempt in attempted
        ],
        parents=np.stack(parents) if parents else None,
        resolution=recipe.resolution,
        exemplars=begun_from(stage, [cell.exemplar for cell, _ in attempted]),
    )


def begun_from(stage: StagePlan, exemplars: Sequence[Exemplar | None]) -> Exemplars | None:
    """Of each image of a batch of a stage, what it begins from; None where that is noise."""
    if stage.exemplars is None:
        return None
    images = [decode(one.content) for one in exemplars if one is not None]
    return Exemplars(np.stack(images), stage.exemplars.strength)


def _verdicts(sampled: Screened, labels: Sequence[int], rule: AcceptRule | None) -> list[Verdict]:
    """The generator's refusals first, then the rule's; padding is judged too, for its shape."""
    images = sampled.images
    judged = rule.judge(images, labels) if rule else [Verdict()] * len(images)
    return [
        Verdict(reason) if reason is not None else verdict
        for reason, verdict in zip(sampled.reasons, judged, strict=True)
    ]


def _encode_all(images: np.ndarray, stage: StagePlan) -> list[bytes]:
    return [encode_image(image, stage.encoding, synthetic=True) for image in images]
