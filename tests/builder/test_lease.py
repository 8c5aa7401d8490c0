"""Which build works on a release: one, wherever it lives, and never a dead one for long."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from builder.state import SyntheticState, read_state
from release import lease
from release.errors import UserError
from release.files.commit import create_exclusively, delete_file, overwrite, write_atomically
from release.files.storage import ReleasePath, list_files, read_bytes, release_path
from release.lease import LeaseLostError, Owner, claimed
from tests.builder.build_command import build
from tests.conftest import ROOT, release_bytes, run

LIFE = 5.0  # of a lease that is never awaited in full
SHORT_LIFE = 0.6


@pytest.fixture
def release(place: str) -> ReleasePath:
    return release_path(place) / "release"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "LIFE_SECONDS", LIFE)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)


def owner(**changes: object) -> Owner:
    """Of another machine, unless told otherwise."""
    own = replace(lease._this_process(), host="elsewhere", pid=4711, machine="another machine")
    return replace(own, **changes)  # type: ignore[arg-type]


def content(of: Owner, beats: int = 0) -> bytes:
    return json.dumps({"beats": beats, "owner": asdict(of)}).encode()


def numbers(release: ReleasePath) -> list[str]:
    return sorted(name for name in list_files(release) if name.startswith("lease/"))


@contextmanager
def beating(path: ReleasePath, of: Owner) -> Iterator[None]:
    """Another machine's build, alive."""
    stop = threading.Event()

    def beat() -> None:
        beats = 0
        while not stop.wait(0.05):
            overwrite(path, content(of, beats := beats + 1))

    thread = threading.Thread(target=beat)
    write_atomically(path, content(of))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_many_that_create_a_file_one_succeeds(release: ReleasePath):
    assert create_exclusively(release / "a", b"first")
    assert not create_exclusively(release / "a", b"second")
    assert read_bytes(release / "a") == b"first"
    delete_file(release / "a")
    delete_file(release / "a")
    assert create_exclusively(release / "a", b"third")


def test_of_many_threads_that_take_a_lease_one_has_it(tmp_path: Path):
    def attempt(_: int) -> bool:
        try:
            with claimed(tmp_path / "release"):
                all_tried.wait()
        except UserError:
            all_tried.wait()
            return False
        return True

    all_tried = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_lease_is_kept_and_given_back(release: ReleasePath):
    with claimed(release):
        assert numbers(release) == ["lease/000001.json"]
        first = read_bytes(release / "lease/000001.json")
        wait_until(lambda: read_bytes(release / "lease/000001.json") != first)
        assert read_state(release, SyntheticState) is None  # a lease makes no release
    assert list_files(release) == {}
    assert not isinstance(release, Path) or not release.exists()


def test_what_is_refused_leaves_no_folder_that_it_made(tmp_path: Path):
    def refused(release: Path) -> None:
        with pytest.raises(UserError, match="no such recipe"), claimed(release):
            raise UserError("no such recipe")

    refused(tmp_path / "releases/of/mine")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "releases").mkdir()
    refused(tmp_path / "releases/of/mine")
    assert list(tmp_path.rglob("*")) == [tmp_path / "releases"]  # an empty one of the user's stays


def test_a_second_build_on_this_machine_is_refused_at_once(release: ReleasePath):
    with claimed(release):
        started = time.monotonic()
        with (
            pytest.raises(UserError, match="another command is at work") as refusal,
            claimed(release),
        ):
            pass
        assert time.monotonic() - started < LIFE
        assert f"pid {os.getpid()}, since 20" in str(refusal.value)
        assert numbers(release) == ["lease/000001.json"]


def test_a_process_of_this_machine_that_is_gone_holds_nothing(release: ReleasePath):
    gone = subprocess.Popen(["true"])
    gone.wait()
    own = lease._this_process()
    for number, dead in enumerate([replace(own, pid=gone.pid), replace(own, started="1")], start=1):
        write_atomically(release / f"lease/00000{number}.json", content(dead))
        with claimed(release, pytest.fail):
            assert numbers(release) == [f"lease/00000{number + 1}.json"]


def test_a_build_that_lives_elsewhere_is_named_and_left_alone(release: ReleasePath):
    said: list[str] = []
    with (
        beating(release / "lease/000003.json", owner()),
        pytest.raises(UserError) as refusal,
        claimed(release, said.append),
    ):
        pass
    assert "host elsewhere, pid 4711, since 20" in str(refusal.value)
    assert "it counts as dead after 5 s without one" in str(refusal.value)
    assert "waiting at most 5 s" in said[0]
    assert numbers(release) == ["lease/000003.json"]


@pytest.mark.parametrize(
    "standing",
    [content(owner(life_seconds=SHORT_LIFE)), b"", b"\x80{", b"[[", b'{"owner":{"pid":-1}}'],
)
def test_a_lease_that_stands_still_is_dead_after_its_life(
    tmp_path: Path, standing: bytes, monkeypatch: pytest.MonkeyPatch
):
    release = tmp_path / "release"
    monkeypatch.setattr(lease, "UNREADABLE_SECONDS", SHORT_LIFE)
    write_atomically(release / "lease/000007.json", standing)
    os.utime(release / "lease/000007.json", (2**33, 2**33))  # the other host's clock is no witness
    started = time.monotonic()
    with claimed(release):
        assert time.monotonic() - started >= SHORT_LIFE
        assert numbers(release) == ["lease/000008.json"]


def test_an_empty_lease_is_nobodys_within_seconds():
    assert lease.UNREADABLE_SECONDS <= 5


def test_a_lease_that_is_written_while_it_is_watched_counts(tmp_path: Path):
    release = tmp_path / "release"
    path = release / "lease/000007.json"
    write_atomically(path, b"")
    alive = content(lease._this_process())

    def write(_: str) -> None:
        threading.Timer(0.1, overwrite, [path, alive]).start()

    with pytest.raises(UserError, match="another command is at work"), claimed(release, write):
        pass
    assert numbers(release) == ["lease/000007.json"]


def test_a_lease_given_back_while_it_is_watched_is_free(tmp_path: Path):
    release = tmp_path / "release"
    write_atomically(release / "lease/000007.json", content(owner(life_seconds=60)))

    def give_back(_: str) -> None:
        threading.Timer(0.1, delete_file, [release / "lease/000007.json"]).start()

    with claimed(release, give_back):
        assert numbers(release) == ["lease/000001.json"]


@pytest.mark.parametrize("how", ["a higher number", "its number is another's", "it is deleted"])
def test_who_loses_the_lease_is_told(release: ReleasePath, how: str):
    def take() -> None:
        own = release / "lease/000001.json"
        if how == "a higher number":
            write_atomically(release / "lease/000002.json", content(owner()))
        elif how == "it is deleted":
            delete_file(own)
        else:
            wait_until(lambda: b'"beats":0' not in read_bytes(own))
            for _ in range(10):  # a beat that was being written may come after one of them
                overwrite(own, content(owner()))
                time.sleep(0.05)
        time.sleep(0.5)

    with pytest.raises(LeaseLostError, match=r"took .* over"), claimed(release):
        take()
    assert len(numbers(release)) == {"a higher number": 2, "it is deleted": 0}.get(how, 1)


def test_a_build_that_loses_its_lease_stops(stand_in_recipe: Path, tmp_path: Path):
    undisturbed, release = tmp_path / "undisturbed/release", tmp_path / "release"
    assert run(build(stand_in_recipe, undisturbed)).returncode == 0
    arguments = [str(part) for part in build(stand_in_recipe, release)]
    code = (
        "import sys; from builder import build_dataset\n"
        "from release import lease; lease.BEAT_SECONDS = 0.1\n"
        f"sys.argv = {arguments!r}; build_dataset.main()"
    )
    building = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"STAND_IN_SECONDS": "0.5", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(release.glob("markers/*/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    taken = release / "lease/000002.json"
    write_atomically(taken, content(owner()))
    _, errors = building.communicate(timeout=60)
    assert building.returncode == 2
    assert errors.splitlines()[-1].startswith(
        f"error: another command took {release} over (host elsewhere, pid 4711, since 20"
    )
    assert not (release / "manifest.json").exists()
    taken.unlink()
    assert run(build(stand_in_recipe, release)).returncode == 0
    assert release_bytes(release) == release_bytes(undisturbed)
