"""Whatever happens to a build, rerunning it ends in the very bytes of an undisturbed one."""

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.builds.build import build_release, plan_build
from builder.builds.run import Outcome, RunSettings
from builder.cluster import cluster as cluster_module
from builder.cluster.cluster import Cluster, open_cluster
from builder.cluster.engine import Interrupted
from builder.planning.recipe import load_recipe
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.conftest import release_bytes, run
from tests.servers.dask_cluster import DaskCluster, wait_until

PER_CLASS = 10
IMAGES = 3 * PER_CLASS * 3  # classes, images of each, stages
SHARD_ROWS = 8


@dataclass
class Case:
    """A recipe, a cluster that runs, and the folder through which its workers are told to fail."""

    recipe: Path
    cluster: DaskCluster
    faults: Path

    def build(self, release: Path, **settings: object) -> Outcome:
        recipe = load_recipe(str(self.recipe))
        release.mkdir(parents=True, exist_ok=True)
        plan = plan_build(
            recipe, recipe.chain(None), load_classes(recipe.classes), PER_CLASS, release
        )
        with_cluster = {"cluster": self.cluster.options} | settings
        return build_release(plan, RunSettings(**with_cluster), lambda _: None)  # type: ignore[arg-type]

    def fault(self, **fault: object) -> None:
        """From now on, workers do this; what they did is forgotten."""
        for path in self.faults.iterdir():
            path.unlink()
        (self.faults / "fault.json").write_text(json.dumps(fault))

    def made_twice(self) -> int:
        lines = (self.faults / "log").read_text().splitlines()
        assert len(set(lines)) == IMAGES
        return len(lines) - len(set(lines))

    def after(self, release: Path, shards: int, act: Callable[[], None]) -> threading.Thread:
        """Do `act` when that many shards are committed."""

        def wait_and_act() -> None:
            wait_until(lambda: len(list(release.glob("markers/*/*.json"))) >= shards)
            act()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def case(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("cluster")
    faults = folder / "faults"
    faults.mkdir()
    cluster = DaskCluster(folder / "dask", workers=2, STAND_IN_FAULTS=str(faults))
    yield Case(stand_in_recipe, cluster, faults)
    cluster.close()


@pytest.fixture(scope="module")
def undisturbed(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker on this machine makes, with the command."""
    release = tmp_path_factory.mktemp("undisturbed") / "release"
    command = ["build-dataset", "--recipe", case.recipe, "--per-class", PER_CLASS, "--workers", 1]
    assert run([*command, "--out", release]).returncode == 0
    return release


def moment(request: pytest.FixtureRequest) -> int:
    """How many shards are committed when it happens: seeded by the test's name."""
    return random.Random(request.node.name).randint(1, 10)


def test_a_running_cluster_with_tls_makes_the_same_bytes(
    case: Case, undisturbed: Path, tmp_path: Path
):
    case.fault()
    outcome = case.build(tmp_path / "release")
    assert not outcome.quarantined
    assert case.made_twice() == 0
    assert release_bytes(tmp_path / "release") == release_bytes(undisturbed)


def test_without_its_certificates_nobody_gets_in(case: Case, tmp_path: Path):
    case.fault()
    bare = replace(case.cluster.options, tls_ca=None, tls_cert=None, tls_key=None)
    with pytest.raises(UserError, match="no scheduler answers"):
        case.build(tmp_path / "release", cluster=bare)


def test_ctrl_c_drops_what_is_in_hand(
    case: Case, undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    release = tmp_path / "release"
    case.fault(seconds=0.05)
    interrupting = case.after(release, moment(request), lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        case.build(release)
    interrupting.join()
    assert not list(release.rglob("*.tmp"))
    assert not (release / "manifest.json").exists()
    case.build(release)
    assert case.made_twice() <= 2 * SHARD_ROWS
    assert release_bytes(release) == release_bytes(undisturbed)


def test_a_killed_worker_costs_the_shard_in_its_hands(
    case: Case, undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    release = tmp_path / "release"
    case.fault(seconds=0.05)

    def kill_a_worker() -> None:
        case.cluster.workers()[0].kill()

    killing = case.after(release, moment(request), kill_a_worker)
    case.build(release)
    killing.join()
    assert case.made_twice() <= 2 * SHARD_ROWS
    assert release_bytes(release) == release_bytes(undisturbed)


@pytest.mark.parametrize("kind", ["exception", "memory", "kill"])
def test_what_fails_once_is_tried_again(case: Case, undisturbed: Path, tmp_path: Path, kind: str):
    case.fault(kind=kind, resolution=16, times=1)
    outcome = case.build(tmp_path / "release")
    assert not outcome.quarantined
    assert case.made_twice() <= 2 * SHARD_ROWS
    assert release_bytes(tmp_path / "release") == release_bytes(undisturbed)


def test_a_full_disk_ends_in_one_line_and_goes_on(case: Case, undisturbed: Path, tmp_path: Path):
    case.fault(kind="disk full", resolution=16, times=1)
    with pytest.raises(OSError, match="No space left on device"):
        case.build(tmp_path / "release")
    case.build(tmp_path / "release")
    assert case.made_twice() <= 2 * SHARD_ROWS * 2
    assert release_bytes(tmp_path / "release") == release_bytes(undisturbed)


def test_a_shard_that_keeps_failing_is_quarantined_and_tried_again(
    case: Case, undisturbed: Path, tmp_path: Path
):
    release = tmp_path / "release"
    case.fault(kind="exception", resolution=8, times=1000)
    outcome = case.build(release)
    failed = {failure.path.split("/")[0] for failure in outcome.quarantined}
    assert failed == {"8"}
    assert len(outcome.waiting) == 2 * len(outcome.quarantined)  # 16 and 32 px
    assert len(outcome.records) == 3 * 3  # the other chains are whole
    first = outcome.quarantined[0]
    record = json.loads((release / "quarantine" / first.path).with_suffix(".json").read_text())
    assert record["reason"] == "RuntimeError: the network gave NaN"
    manifest = json.loads((release / "manifest.json").read_text())
    assert set(manifest["origin"]["quarantined_shards"]) == {f.path for f in outcome.quarantined}
    case.fault()
    assert not case.build(release).quarantined
    assert release_bytes(release) == release_bytes(undisturbed)


def test_other_versions_are_refused_unless_mixed(case: Case, tmp_path: Path):
    release = tmp_path / "release"
    case.fault(kind="exception", resolution=32, times=1000)
    case.build(release)
    case.fault()
    state = release / "build.json"
    state.write_text(state.read_text().replace(f'"{torch_version()}"', '"2.0.0"'))
    with pytest.raises(UserError, match=r"was not made with what is here: torch .*, not 2\.0\.0"):
        case.build(release)
    outcome = case.build(release, allow_mixed=True)
    manifest = json.loads((release / "manifest.json").read_text())
    torches = [e["versions"]["torch"] for e in manifest["origin"]["environments"]]
    assert len(outcome.environments) == 2
    assert "2.0.0" in torches


def torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def test_whatever_the_client_is_asked_a_lost_scheduler_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 5)
    dask = DaskCluster(tmp_path / "dask", workers=1)
    gone = r"scheduler at .* is gone: what is finished is kept"
    try:
        with open_cluster(dask.options, 1, lambda _: None) as cluster:
            wait_until(lambda: cluster.threads() == 1)
            future = cluster.submit(sum, [1, 2], key="three")
            erred = cluster.submit(os.stat, "/no/such/file", key="absent")
            wait_until(lambda: future.status == "finished" and erred.status == "error")
            with pytest.raises(FileNotFoundError):  # the task's own, though it is an OSError
                cluster.result(erred)
            dask.scheduler.kill()
            calls: list[Callable[[], object]] = [
                lambda: cluster.result(future),  # what it returned is still to be fetched
                cluster.threads,
                lambda: cluster.run_everywhere(sum, [1]),
                lambda: cluster.restart("tls://127.0.0.1:1"),
            ]
            for call in calls:
                with pytest.raises(UserError, match=gone):
                    call()
            wait_until(lambda: cluster.client.status == "closed")
            for call in (*calls, lambda: cluster.submit(sum, [1], key="one")):
                with pytest.raises(UserError, match=gone):
                    call()
    finally:
        dask.close()


def test_a_client_that_cannot_close_does_not_hide_why(case: Case, monkeypatch: pytest.MonkeyPatch):
    """Whose reconnecting was cut off in a TLS handshake, say."""

    async def fail(**_: object) -> None:
        raise ValueError("IOStream is not idle; cannot convert to SSL")

    def lose(cluster: Cluster) -> None:
        monkeypatch.setattr(cluster.client, "_close", fail)
        raise UserError("the scheduler is gone")

    with (
        pytest.raises(UserError, match="is gone"),
        open_cluster(case.cluster.options, 1, lambda _: None) as cluster,
    ):
        lose(cluster)
    cluster.client.__del__()  # as when it is collected: it does not close again
    monkeypatch.undo()
    cluster.client.status = "closing"
    cluster.client.close()


def test_a_lost_nanny_and_a_lost_scheduler(
    stand_in_recipe: Path, undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    faults = tmp_path / "faults"
    faults.mkdir()
    case = Case(
        stand_in_recipe, DaskCluster(tmp_path / "one", 2, STAND_IN_FAULTS=str(faults)), faults
    )
    release = tmp_path / "release"
    case.fault(seconds=0.05)

    def kill_nanny_then_scheduler() -> None:
        case.cluster.nannies[0].kill()
        wait_until(lambda: len(list(release.glob("markers/*/*.json"))) >= 8)
        case.cluster.scheduler.kill()

    try:
        killing = case.after(release, 1 + moment(request) // 2, kill_nanny_then_scheduler)
        with pytest.raises(UserError, match=r"scheduler at .* is gone"):
            case.build(release)
        killing.join()
    finally:
        case.cluster.close()
    assert (
        run(
            ["build-dataset", "--recipe", case.recipe, "--per-class", PER_CLASS, "--out", release]
        ).returncode
        == 0
    )
    assert release_bytes(release) == release_bytes(undisturbed)
