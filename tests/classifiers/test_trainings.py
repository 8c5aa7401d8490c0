"""Trainings on a cluster: several processes, several nodes, and workers that are killed."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from builder.cluster import waiting
from classifiers.on_cluster import shares
from classifiers.on_cluster.processes import Team, Training, perform
from classifiers.on_cluster.shares import share_done, share_file, telling_share
from classifiers.on_cluster.starts import MOST_STARTS, counted_start, starts_file
from classifiers.on_cluster.trainings import perform_trainings
from classifiers.training.task import Task
from release.errors import UserError
from release.files.checked_files import read_weights
from release.results.result import read_result
from tests.servers.dask_cluster import wait_until
from tests.servers.forked_workers import ForkedWorkers, forked_workers
from tests.sets.shapes import changed, make_images, write_release

# Without batch normalisation, so that several processes differ by rounding alone.
VIT = {
    "model": "test_vit",
    "model_args": {"img_size": 16, "patch_size": 8},
    "stem_pool": True,
    "optimizer": "sgd",  # AdamW's first steps have the size of the rate, whatever the gradient's
    "learning_rate": 0.05,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainings")
    splits = {"train": make_images(10, 1), "test": make_images(6, 2)}
    write_release(folder / "real", splits)
    return folder


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedWorkers]:
    with forked_workers(tmp_path_factory.mktemp("dask"), 0) as started:
        yield started


def training(place: Path, out: Path, steps: int = 40, **settings: object) -> Training:
    recipe = changed(**settings)
    task = Task(recipe, (f"{place}/real:16:train",), f"{place}/real:16:test", steps=steps)
    return Training(task, 0, out, out.with_suffix(".safetensors"))


def with_workers(workers: ForkedWorkers, count: int) -> None:
    while len(workers.processes) > count:
        workers.kill()
    while len(workers.processes) < count:
        workers.start()


def finished(paths: list[Path]) -> Callable[[Training, float], None]:
    """Puts the trainings that are done there; shares rise, and 1 is told once."""
    before: dict[Path, float] = {}

    def add(training: Training, share: float) -> None:
        assert before.get(training.path, 0) < share <= 1
        before[training.path] = share
        if share == 1:
            paths.append(training.path)

    return add


def kill_at_each(file: Path, times: int, kill: Callable[[], None]) -> threading.Thread:
    """Do so each time that `file` is written anew; a few times."""

    def written() -> int:
        try:
            return file.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def watch() -> None:
        before = 0
        for _ in range(times):
            wait_until(lambda known=before: written() not in (0, known))
            kill()
            before = written()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def replaced(workers: ForkedWorkers) -> Callable[[], None]:
    """A worker is killed, and another one comes."""

    def kill() -> None:
        workers.kill()
        workers.start()

    return kill


def kill_a_process(workers: ForkedWorkers) -> None:
    """One that the worker started for a training, as the kernel does for want of memory."""
    worker = psutil.Process(workers.processes[0].pid)
    own = [p for server in worker.children() for p in server.children()]
    own[-1].kill()


def test_four_lost_workers_cost_requeues_and_no_more(place: Path, workers: ForkedWorkers) -> None:
    """Each dies after a new state; the weights are those of a training that was left alone."""
    with_workers(workers, 1)
    disturbed = training(place, place / "disturbed.json", steps=150)
    alone = training(place, place / "alone.json", steps=150)
    killing = kill_at_each(disturbed.path.with_suffix(".state"), 4, replaced(workers))
    done: list[Path] = []
    team = Team(threads=1, state_seconds=0)
    perform_trainings(workers.cluster, [disturbed], team, finished(done))
    killing.join(1)
    assert not killing.is_alive()
    perform_trainings(workers.cluster, [alone], team, finished(done))
    assert done == [disturbed.path, alone.path]
    saved = [read_weights(t.save) for t in (disturbed, alone) if t.save]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[1])
    assert read_result(disturbed.path).values == read_result(alone.path).values
    assert not starts_file(disturbed.path).exists()
    before = alone.path.stat().st_mtime_ns  # Dask may ask again: the worker with the answer is lost
    again = workers.cluster.submit(perform, alone, team, key="again")
    workers.cluster.result(again)
    assert alone.path.stat().st_mtime_ns == before


def test_a_training_that_kills_its_worker_each_time_is_named(
    place: Path, workers: ForkedWorkers
) -> None:
    """It keeps no state in between. What goes on from it fails with it; the others are done."""
    with_workers(workers, 1)
    deadly = training(place, place / "deadly.json", steps=10**6)
    follower = replace(training(place, place / "follower.json"), after=(deadly.path,))
    other = training(place, place / "other.json")
    killing = kill_at_each(share_file(deadly.path), MOST_STARTS, replaced(workers))
    told: list[tuple[Path, float]] = []
    named = rf"2 of 3 trainings failed; .*deadly.json ended its process {MOST_STARTS} times before"
    with pytest.raises(UserError, match=named):
        perform_trainings(
            workers.cluster,
            [deadly, follower, other],
            Team(threads=1, state_seconds=1e9),
            lambda training, share: told.append((training.path, share)),
        )
    killing.join(1)
    assert not killing.is_alive()
    assert [path for path, share in told if share == 1] == [other.path]
    assert any(0 < share < 1 for path, share in told if path == deadly.path)
    assert not any(share_file(one.path).exists() for one in (deadly, other))
    assert not starts_file(deadly.path).exists()  # a person who tries again is let
    assert not follower.path.exists()


def test_those_that_others_wait_for_come_first(place: Path, workers: ForkedWorkers) -> None:
    """A training that waits for two begins when both are done."""
    with_workers(workers, 1)
    lone, first, second = (training(place, place / f"{n}.json", 1) for n in ("lone", "a", "b"))
    last = replace(training(place, place / "last.json", 1), after=(first.path, second.path))
    done: list[Path] = []
    perform_trainings(workers.cluster, [last, lone, first, second], Team(threads=1), finished(done))
    assert done == [first.path, second.path, lone.path, last.path]


def test_a_training_tells_its_share_and_in_the_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.json"
    assert share_done(out) == 0
    with telling_share(out, 400) as advance:
        advance(0)
        assert not share_file(out).exists()
        advance(100)  # those of its state, where it goes on
        assert share_done(out) == 0.25
        advance(100)
        assert share_done(out) == 0.25  # not with every batch
        monkeypatch.setattr(shares, "TOLD_SECONDS", 0)
        advance(100)
        assert share_done(out) == 0.75
        share_file(out).write_text("0.x")
        assert share_done(out) == 0
        share_file(out).unlink()
        share_file(out).mkdir()  # nothing can be written there
        advance(100)
    assert share_done(out) == 0


def test_starts_count_only_from_one_state_and_only_those_in_vain(tmp_path: Path) -> None:
    out, state = tmp_path / "x.json", tmp_path / "x.state"

    def counted() -> int:
        return int(json.loads(starts_file(out).read_bytes())["starts"])

    generators = []  # kept, so that nothing of them is closed

    def start_in_vain() -> None:
        generators.append(counted_start(out))
        generators[-1].__enter__()

    for wanted in (1, 2, 3):
        start_in_vain()
        assert counted() == wanted
    state.write_bytes(b"one")
    start_in_vain()
    assert counted() == 1
    with pytest.raises(OSError, match="full"), counted_start(out):
        raise OSError("full")
    assert not starts_file(out).exists()  # it ended by itself: told, not counted
    for _ in range(MOST_STARTS):
        start_in_vain()
    with pytest.raises(UserError, match=r"without a new state after x\.state"):
        start_in_vain()


def test_two_processes_train_what_one_does(place: Path, workers: ForkedWorkers) -> None:
    """One of them is killed on the way."""
    with_workers(workers, 1)
    both = training(place, place / "both.json", **VIT)
    one = training(place, place / "one.json", **VIT)
    perform_trainings(workers.cluster, [one], Team(threads=1), lambda *_: None)
    state = both.path.with_suffix(".state")
    killing = kill_at_each(state, 1, lambda: kill_a_process(workers))
    team = Team(threads=1, processes=2, state_seconds=0)
    perform_trainings(workers.cluster, [both], team, lambda *_: None)
    killing.join(1)
    assert not killing.is_alive()
    assert not starts_file(both.path).exists()
    assert read_result(both.path).environment["processes"] == 2
    saved = [read_weights(t.save) for t in (both, one) if t.save]
    for name, weight in saved[1].items():
        torch.testing.assert_close(saved[0][name], weight, atol=1e-5, rtol=1e-4)


def test_two_nodes_of_which_one_is_lost_begin_anew_together(
    place: Path, workers: ForkedWorkers
) -> None:
    with_workers(workers, 2)
    shared = training(place, place / "shared.json", steps=120)
    killing = kill_at_each(shared.path.with_suffix(".state"), 1, replaced(workers))
    team = Team(threads=1, nodes=2, state_seconds=0)
    perform_trainings(workers.cluster, [shared], team, lambda *_: None)
    killing.join(1)
    assert not killing.is_alive()
    result = read_result(shared.path)
    assert result.environment["processes"] == 2
    assert result.values["steps"] == 120


def test_a_refusal_of_a_process_is_its_own_line(place: Path, workers: ForkedWorkers) -> None:
    with_workers(workers, 1)
    odd = training(place, place / "odd.json", batch=33)
    with pytest.raises(UserError, match=r"odd\.json: batch = 33 does not divide over 2 processes"):
        perform_trainings(workers.cluster, [odd], Team(threads=1, processes=2), lambda *_: None)


def test_gpus_that_no_worker_states_are_told_at_once(place: Path, workers: ForkedWorkers) -> None:
    with_workers(workers, 0)
    workers.start(GPU=2)
    with pytest.raises(UserError, match=r"states 4 GPUs, .* but 2 at most: .* --resources GPU=4"):
        perform_trainings(
            workers.cluster, [training(place, place / "x.json")], Team(processes=4), lambda *_: None
        )
