"""A shard is written while the next is sampled: one at a time, and what fails is heard of."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from builder.cluster.worker import Done, Failure, Terms, run_job
from builder.planning.plan import plan_stages
from builder.planning.recipe import load_recipe
from builder.shards import slots
from builder.shards.overlap import beside_next_shard
from builder.shards.slots import Cell, Slots, fill_slots
from builder.state import STATE_FILE
from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch
from release.classes.class_list import load_classes
from release.environment import own_environment
from release.files.commit import sha256_file
from release.images.encoding import encode_image
from release.layout.manifest import ShardRecord
from tests.nothing_kept import NothingKept

events: list[str] = []
may_write: dict[int, threading.Event] = {}


@dataclass(frozen=True)
class SlowToWrite:
    """A job whose writing waits until it may; says what it is at."""

    number: int
    release: Path
    error: Exception | None = None
    fingerprint: str = ""
    planned: int = 1
    after: str | None = None
    priority: int = 0

    @property
    def path(self) -> str:
        return f"8/train-{self.number}.parquet"

    def committed(self) -> ShardRecord | None:
        return None

    def run(self) -> ShardRecord:
        events.append(f"sample {self.number}")
        with beside_next_shard():
            events.append(f"write {self.number}")
            assert may_write[self.number].wait(30)
            if self.error is not None:
                raise self.error
            events.append(f"written {self.number}")
        return ShardRecord(self.path, 1, 1, "", "", {})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker of one thread, in this process so that it shares `events`."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def submit(client: Client, folder: Path, errors: list[Exception | None]) -> list:
    events.clear()
    may_write.update({number: threading.Event() for number in range(len(errors))})
    (folder / STATE_FILE).write_text("{}")
    terms = Terms(folder.name, own_environment(), sha256_file(folder / STATE_FILE))
    jobs = [SlowToWrite(number, folder, error) for number, error in enumerate(errors)]
    return [client.submit(run_job, job, terms, priority=-job.number, pure=False) for job in jobs]


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, events
        time.sleep(0.01)


def test_one_shard_is_written_while_the_next_is_sampled_and_no_more(client: Client, tmp_path: Path):
    results = submit(client, tmp_path, [None] * 4)
    for number in range(3):
        wait_for(lambda n=number: f"sample {n + 1}" in events)
        time.sleep(0.1)
        # the worker holds two shards: one is written, the other waits, a third is not begun
        assert set(events[-2:]) == {f"write {number}", f"sample {number + 1}"}, events
        may_write[number].set()
    may_write[3].set()
    assert [type(future.result()) for future in results] == [Done] * 4
    assert [e for e in events if e.startswith("sample")] == [f"sample {n}" for n in range(4)]
    writing = [e for e in events if not e.startswith("sample")]
    assert writing == [f"{word} {n}" for n in range(4) for word in ("write", "written")]


def test_what_writing_raises_is_the_shards_own_failure(client: Client, tmp_path: Path):
    full = OSError(errno.ENOSPC, "No space left on device")
    results = submit(client, tmp_path, [ValueError("no such store"), full, None])
    for event in may_write.values():
        event.set()
    failure = results[0].result()
    assert isinstance(failure, Failure)
    assert (failure.path, failure.reason) == ("8/train-0.parquet", "ValueError: no such store")
    with pytest.raises(OSError, match="No space left on device"):
        results[1].result()
    assert isinstance(results[2].result(), Done)


@dataclass
class Encoding:
    """A sampler that is faster than its encoder: how far it gets ahead, in images."""

    side: int
    sampled: int = 0
    encoded: int = 0
    ahead: int = 0

    def sample(self, batch: ImageBatch, settings: SamplerConfig) -> np.ndarray:  # noqa: ARG002
        self.sampled += len(batch.seeds)
        self.ahead = max(self.ahead, self.sampled - self.encoded)
        return np.zeros((len(batch.seeds), self.side, self.side, 3), np.uint8)

    def encode(self, image: np.ndarray, encoding: str, *, synthetic: bool) -> bytes:
        time.sleep(0.01)
        content = encode_image(image, encoding, synthetic=synthetic)
        self.encoded += 1
        return content


def test_at_most_two_batches_wait_for_encoding(
    stand_in_recipe: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = load_recipe(str(stand_in_recipe))
    classes = load_classes(recipe.classes)
    stage = plan_stages(recipe, recipe.chain(8), classes, ["a" * 64])[0]
    cells = [Cell(classes[0], index, classes[0].prompt) for index in range(8 * stage.recipe.batch)]
    work = Encoding(stage.recipe.resolution)
    monkeypatch.setattr(slots, "encode_image", work.encode)
    images = fill_slots(Slots(len(cells), 1), cells, 7, stage, work, None, NothingKept())
    assert len(images) == work.encoded == len(cells)
    assert work.ahead <= 2 * stage.recipe.batch

    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("no room to encode in")

    monkeypatch.setattr(slots, "encode_image", fail)
    with pytest.raises(ValueError, match="no room to encode in"):
        fill_slots(Slots(len(cells), 1), cells, 7, stage, work, None, NothingKept())
