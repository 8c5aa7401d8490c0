"""A shard that takes long goes on inside itself: the same bytes, and no image made twice."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from builder.accept import Verdict
from builder.builds.build import plan_build
from builder.planning.recipe import load_recipe
from builder.shards import halfway, stopping
from builder.shards.halfway import Halfway, forget_finished
from builder.shards.shard import ShardJob, load_generator
from builder.shards.slots import Rejection, Slots
from builder.shards.stopping import Stopped, begin_job, stop_run
from generation.diffusion.sampler_config import SamplerConfig
from generation.generator import ImageBatch
from release.classes.class_list import load_classes
from release.layout.manifest import ShardRecord
from release.layout.shard_files import is_shard
from tests.stand_in import StandIn

RULE = 'checkpoint = "8"\naccept = { rule = "tests.stand_in_rule", red = 128, attempts = 3 }\n'


class KilledError(Exception):
    """In place of a kill: what was not written is lost."""


@pytest.fixture
def recipe(stand_in_recipe: Path, tmp_path: Path) -> Path:
    """Two stages, of which the first rejects half of what it makes; all shards 8 images."""
    text = stand_in_recipe.read_text().replace('checkpoint = "8"\n', RULE)
    (tmp_path / "halves.toml").write_text(text)
    return tmp_path / "halves.toml"


def first_jobs(recipe: Path, release: Path) -> dict[int, ShardJob]:
    """The first shard of each stage, by resolution."""
    loaded = load_recipe(str(recipe))
    classes = load_classes(loaded.classes)
    jobs = plan_build(loaded, loaded.chain(16), classes, 4, release).jobs()
    return {job.plan.stage.recipe.resolution: job for job in reversed(jobs)}


def run_until(
    job: ShardJob, monkeypatch: pytest.MonkeyPatch, batches: int | None
) -> tuple[ShardRecord | None, list[int]]:
    """Its record, None if it was killed after so many batches, and the seeds it sampled."""
    sample, seeds = StandIn.sample, []

    def counted(self: StandIn, batch: object, settings: object) -> np.ndarray:
        if batches is not None and len(seeds) == batches:
            raise KilledError
        time.sleep(0.02)
        seeds.append(batch.seeds)
        return sample(self, batch, settings)

    load_generator.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(StandIn, "sample", counted)
        try:
            record = job.run()
        except KilledError:
            record = None
    return record, [seed for batch in seeds for seed in batch]


def files(release: Path) -> dict[str, bytes]:
    """All but what differs from run to run."""
    return {
        path.relative_to(release).as_posix(): path.read_bytes()
        for path in sorted(release.rglob("*"))
        if path.is_file() and "sidecars" not in path.parts
    }


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_shard_goes_on_where_it_was_kept(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolution: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    planned = [first_jobs(recipe, release) for release in (whole, broken)]
    if resolution == 16:
        for of_release in planned:
            of_release[8].run()
    undisturbed, job = (of_release[resolution] for of_release in planned)
    _, wanted = run_until(undisturbed, monkeypatch, None)
    monkeypatch.setattr(halfway, "EVERY_SECONDS", -1.0)
    made: list[int] = []
    record = None
    for _ in range(20):  # one batch a life: each is killed at its second
        record, seeds = run_until(job, monkeypatch, 1)
        made += seeds
        if record is not None:
            break
    assert record is not None
    # what is sampled in the batch after the last that was kept is made twice, no other
    assert set(made) == set(wanted)
    assert len(made) < 2 * len(wanted) + 20
    assert files(broken) == files(whole)
    (sidecar,) = broken.glob(f"sidecars/{resolution}/*")
    assert json.loads(sidecar.read_text())["seconds"] > 0.004 * len(wanted)
    assert not list(broken.rglob("halfway/*/*"))


def test_a_shard_goes_on_that_was_killed_while_a_batch_was_decoded(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way is made again; the images are those of a worker that decodes in turn."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed, job = (first_jobs(recipe, release)[8] for release in (whole, broken))
    run_until(undisturbed, monkeypatch, None)
    asked = count(1)
    monkeypatch.setattr(Halfway, "due", lambda _, *, stopped: next(asked) % 3 == 0)  # noqa: ARG005

    def decoded(images: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return images

    lives = 0
    with ThreadPoolExecutor(max_workers=1) as pool:

        def begin(generator: StandIn, batch: ImageBatch, settings: SamplerConfig) -> Future:
            return pool.submit(decoded, generator.sample(batch, settings))

        monkeypatch.setattr(StandIn, "decodes_beside", True, raising=False)
        monkeypatch.setattr(StandIn, "begin", begin, raising=False)
        record = None
        while record is None and lives < 30:  # three batches a life: each is killed at its fourth
            record, _ = run_until(job, monkeypatch, 3)
            lives += 1
    assert record is not None
    assert lives > 1
    assert files(broken) == files(whole)
    assert not list(broken.rglob("halfway/*/*"))


@pytest.mark.parametrize("place", [0, 63, 64, 70, -300, -1])
def test_a_damaged_file_counts_for_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    job = first_jobs(recipe, tmp_path / "r")[8]
    monkeypatch.setattr(halfway, "EVERY_SECONDS", -1.0)
    assert run_until(job, monkeypatch, 2)[0] is None
    (kept,) = (tmp_path / "r").rglob("halfway/8/*.half")
    assert not is_shard(kept.relative_to(tmp_path / "r").as_posix())
    content = bytearray(kept.read_bytes())
    content[place] ^= 1
    kept.write_bytes(content)
    _, again = run_until(job, monkeypatch, None)
    _, wanted = run_until(first_jobs(recipe, tmp_path / "other")[8], monkeypatch, None)
    assert again == wanted
    kept.write_bytes(content[:50])  # and one that was cut short
    assert run_until(job, monkeypatch, None)[1] == wanted


def test_the_end_of_other_work_leaves_what_an_extension_has_halfway(tmp_path: Path) -> None:
    for shard in ("32/train-0", "32/train-1", "64/train-1"):
        (tmp_path / "halfway" / f"{shard}.half").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "halfway" / f"{shard}.half").write_bytes(b"")
    forget_finished(tmp_path, ["32/train-0.parquet", "32/train-9.parquet"])
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.half")}
    assert left == {"halfway/32/train-1.half", "halfway/64/train-1.half"}
    forget_finished(tmp_path, ["32/train-1.parquet", "64/train-1.arrow"])
    assert not (tmp_path / "halfway").exists()


def test_only_the_same_images_are_taken_up(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = first_jobs(recipe, tmp_path / "r")[8]
    monkeypatch.setattr(halfway, "EVERY_SECONDS", -1.0)
    run_until(job, monkeypatch, 2)
    (kept,) = (tmp_path / "r").rglob("halfway/8/*.half")
    content = kept.read_bytes()
    other = replace(job, release_seed=8)
    _, seeds = run_until(other, monkeypatch, None)
    kept.write_bytes(content)
    monkeypatch.setattr(halfway, "own_environment", replace_torch)
    _, anew = run_until(job, monkeypatch, None)
    assert len(anew) == len(run_until(first_jobs(recipe, tmp_path / "s")[8], monkeypatch, None)[1])
    assert seeds != anew


def replace_torch() -> object:
    from release.environment import own_environment

    own = own_environment()
    return replace(own, versions={**dict(own.versions), "torch": "0.0"})


def test_little_work_writes_no_file_and_a_stopped_build_keeps_much(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = first_jobs(recipe, tmp_path / "r")[8]
    monkeypatch.setattr(stopping, "_current", [])
    monkeypatch.setattr(stopping, "_stopped", set())
    begin_job("run")
    sample = StandIn.sample

    def stopping_sample(self: StandIn, batch: object, settings: object) -> np.ndarray:
        stop_run("run")
        return sample(self, batch, settings)

    monkeypatch.setattr(StandIn, "sample", stopping_sample)
    for seconds, kept in ((60.0, 0), (-1.0, 1)):
        stopping._stopped.clear()
        monkeypatch.setattr(halfway, "STOPPED_SECONDS", seconds)
        with pytest.raises(Stopped):
            job.run()
        assert len(list((tmp_path / "r").rglob("halfway/8/*.half"))) == kept


def test_slots_that_go_on_ask_for_the_same_attempts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        attempts = int(rng.integers(1, 4))
        outcome = rng.random((9, attempts)) < 0.5
        whole = Slots(9, attempts)

        def settle(slots: Slots, batch: Sequence[tuple[int, int]], kept: np.ndarray) -> None:
            said = [Verdict(None if kept[slot, at] else "no") for slot, at in batch]
            list(slots.settle(batch, said))

        while batch := whole.next_batch(4):
            resumed = Slots(9, attempts)
            resumed.go_on(dict(whole.accepted), [Rejection(**vars(r)) for r in whole.rejections])
            assert resumed.next_batch(4) == batch
            settle(whole, batch, outcome)
