"""A batch is decoded while the next is sampled: one batch ahead, the same images and refusals.

On the CPU of a test this is switched on by hand.
"""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from builder.accept import Verdict
from builder.planning.plan import StagePlan, plan_stages
from builder.planning.recipe import load_recipe
from builder.shards.slots import Cell, Slots, fill_slots
from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import NOT_FINITE, ImageBatch
from generation.pretrained import decoding
from generation.pretrained.decoding import DecodingGenerator
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.nothing_kept import NothingKept

SIDE = 8


@dataclass
class Colours(DecodingGenerator):
    """Each image is a flat colour from its seed. beside: whether it decodes while it samples.

    wait: what decoding does first. events: what was done, batch by batch, and in which thread.
    """

    beside: bool
    side: int = SIDE
    wait: Callable[[int], None] = lambda _: None
    bad: Callable[[int], bool] = lambda _: False
    events: list[tuple[str, int]] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    seeds: Counter = field(default_factory=Counter)

    @property
    def decodes_beside(self) -> bool:
        return self.beside

    def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Tensor:  # noqa: ARG002
        number = sum(event == "sampled" for event, _ in self.events)
        self.seeds.update(set(batch.seeds))
        levels = torch.tensor([[seed % 251, seed % 241, seed % 239] for seed in batch.seeds])
        found = levels.float() / 127.5 - 1
        found[torch.tensor([self.bad(seed) for seed in batch.seeds])] = torch.nan
        self.events.append(("sampled", number))
        return found[:, :, None, None].expand(-1, -1, self.side, self.side)

    def decoded(self, latents: Tensor) -> Tensor:
        number = sum(event == "decoded" for event, _ in self.events)
        self.wait(number)
        self.threads.append(threading.get_ident())
        self.events.append(("decoded", number))
        return latents


class RedRule:
    """Half of all colours are kept."""

    def judge(self, images: np.ndarray, labels: Any) -> list[Verdict]:
        assert len(labels) == len(images)
        return [Verdict("too red" if image[0, 0, 0] > 120 else None) for image in images]


@pytest.fixture
def planned(stand_in_recipe: Path) -> tuple[StagePlan, list[Cell]]:
    """A stage of 8 px and the slots of five of its batches, the last not full."""
    recipe = load_recipe(str(stand_in_recipe))
    classes = load_classes(recipe.classes)
    stage = plan_stages(recipe, recipe.chain(SIDE), classes, ["a" * 64])[0]
    count = 5 * stage.recipe.batch - 1
    return stage, [Cell(classes[i % 3], i, classes[i % 3].prompt) for i in range(count)]


def filled(
    planned: tuple[StagePlan, list[Cell]], generator: Colours, attempts: int = 1, rule: Any = None
) -> tuple[dict[int, bytes], Slots]:
    stage, cells = planned
    slots = Slots(len(cells), attempts)
    return fill_slots(slots, cells, 7, stage, generator, rule, NothingKept()), slots


def test_the_next_batch_is_sampled_before_the_images_of_one_are_taken(planned):
    """Decoding waits until the next batch is sampled: were it not begun, that would be for ever."""
    generator = Colours(beside=True)

    def until_next_is_sampled(number: int) -> None:
        for _ in range(1000):
            if ("sampled", number + 1) in generator.events or number == 4:
                return
            threading.Event().wait(0.01)
        raise AssertionError(generator.events)

    generator.wait = until_next_is_sampled
    images, _ = filled(planned, generator)
    assert len(images) == len(planned[1])
    places = {event: place for place, event in enumerate(generator.events)}
    for number in range(4):
        assert places["sampled", number + 1] < places["decoded", number]
        # and one batch ahead, no more
        assert ("sampled", number + 2) not in places or (
            places["decoded", number] < places["sampled", number + 2]
        )
    assert len(set(generator.threads)) == 1
    assert threading.get_ident() not in generator.threads


def test_a_cpu_samples_and_decodes_in_turn_in_one_thread(planned):
    generator = Colours(beside=False)
    filled(planned, generator)
    assert generator.events == [(what, n) for n in range(5) for what in ("sampled", "decoded")]
    assert set(generator.threads) == {threading.get_ident()}


def test_beside_is_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch):
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert DecodingGenerator.decodes_beside.fget(Colours(beside=False)) is there


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("rule", [None, RedRule()])
def test_images_refusals_and_retries_are_the_same(planned, rule, attempts):
    def bad(seed: int) -> bool:
        return seed % 5 == 0

    (images, slots), (beside, other) = (
        filled(planned, Colours(beside, bad=bad), attempts, rule) for beside in (False, True)
    )
    assert beside == images
    assert other.accepted == slots.accepted
    key = repr
    assert sorted(other.rejections, key=key) == sorted(slots.rejections, key=key)
    reasons = {rejection.verdict.reason for rejection in slots.rejections}
    assert reasons == {NOT_FINITE, "too red"} if rule else {NOT_FINITE}


def test_what_decoding_raises_is_raised(planned):
    def fail(number: int) -> None:
        if number == 2:
            raise ValueError("cannot be decoded")

    for beside in (False, True):
        generator = Colours(beside, wait=fail)
        with pytest.raises(ValueError, match="cannot be decoded"):
            filled(planned, generator)
        assert sum(event == "sampled" for event, _ in generator.events) == 3 + beside
    # and the thread that decodes goes on with other shards
    assert len(filled(planned, Colours(beside=True))[0]) == len(planned[1])


def test_images_of_another_size_are_named(planned):
    for beside in (False, True):
        with pytest.raises(UserError, match="makes images of 16 px, its stage in the recipe has"):
            filled(planned, Colours(beside, side=16))


def test_what_is_under_way_is_kept_when_a_build_keeps_its_work(planned):
    """Nothing that was sampled is lost, and no slot is in two batches at once."""
    kept: list[int] = []

    class Often(NothingKept):
        def due(self, *, stopped: bool) -> bool:
            return not stopped

        def save(self, slots: Slots, images: dict[int, bytes]) -> None:
            assert set(images) == set(slots.accepted)
            kept.append(len(images))

    stage, cells = planned
    generator = Colours(beside=True)
    fill_slots(Slots(len(cells), 1), cells, 7, stage, generator, None, Often())
    assert kept == [n * stage.recipe.batch for n in range(5)]
    assert set(generator.seeds.values()) == {1}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 9))
def test_slots_settle_the_same_where_a_batch_is_ahead(bad: list[int], attempts: int, size: int):
    """bad[slot]: how many attempts of the slot fail before one is fine."""
    slots, begun = Slots(len(bad), attempts), []
    while not slots.settled:
        busy = {slot for batch in begun for slot, _ in batch}
        batch = slots.next_batch(size, busy)
        assert not busy & {slot for slot, _ in batch}
        begun += [batch] if batch else []
        if not batch or len(begun) > 1:
            taken = begun.pop(0)
            said = [Verdict("bad" if attempt < bad[slot] else None) for slot, attempt in taken]
            for row, slot in slots.settle(taken, said):
                assert taken[row] == (slot, bad[slot])
    assert begun == []
    assert slots.accepted == {slot: n for slot, n in enumerate(bad) if n < attempts}
    tried = Counter(r.slot for r in slots.rejections)
    assert tried == Counter({slot: min(n, attempts) for slot, n in enumerate(bad) if n})


@dataclass
class OnGpu:
    """Latents that say that they are on a GPU; what is done with them is noted."""

    calls: list[str]
    is_cuda = True
    device = torch.device("cuda", 0)

    def record_stream(self, stream: str) -> None:
        self.calls.append(f"held for {stream}")


def test_decoding_waits_for_the_samplers_stream_on_one_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """Without a GPU: the order of what is asked of CUDA."""
    calls: list[str] = []

    class Stream(str):
        def record_event(self) -> str:
            calls.append(f"event of {self}")
            return "event"

        def wait_event(self, event: str) -> None:
            calls.append(f"{self} waits for {event}")

    @contextmanager
    def within(stream: Stream):
        calls.append(f"within {stream}")
        yield
        calls.append(f"left {stream}")

    class Generator(Colours):
        def latents(self, batch: ImageBatch, settings: SamplerConfig) -> Any:  # noqa: ARG002
            calls.append("sampled")
            return OnGpu(calls)

        def decoded(self, latents: Any) -> Tensor:
            assert latents.is_cuda
            calls.append("decoded")
            return torch.zeros(1, 3, 2, 2)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("the sampler's"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream("the decoder's"))
    monkeypatch.setattr(torch.cuda, "stream", within)
    decoding._decoding_stream.cache_clear()
    batch = ImageBatch([""], [0], [1], None, 2)
    images = Generator(beside=True).begin(batch, SamplerConfig()).result()
    decoding._decoding_stream.cache_clear()
    np.testing.assert_array_equal(images, np.full((1, 2, 2, 3), 128))
    assert calls == [
        "sampled",
        "event of the sampler's",
        "within the decoder's",
        "the decoder's waits for event",
        "held for the decoder's",
        "decoded",
        "left the decoder's",
    ]
