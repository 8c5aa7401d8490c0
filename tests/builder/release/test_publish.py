"""`release publish` against a server that speaks the Hub's protocol, with every kind of fault."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset

from builder.builds.growth import known_records
from builder.release.hub import Repository
from builder.release.publish import publish_release
from builder.release.verify import verify_release
from release.errors import UserError
from release.layout.manifest import read_manifest
from release.layout.shard_commit import marker_name
from release.streaming.encoded import index_images
from tests.builder.release.hub_environment import environment
from tests.forked_commands import run
from tests.servers.faulty_store import BUCKET, FaultyStore
from tests.servers.hub_server import Hub

REPO = "someone/colours"
UPLOADS = ("create", "preupload", "batch", "put", "verify", "validate", "commit", "tag", "tree")
# Waiting is what takes time here: each wait is told and cut short.
PUBLISH = """
import sys, time
real = time.sleep
def short(seconds):
    print(f"waited {seconds:.0f}", file=sys.stderr)
    real(min(seconds, 0.01))
time.sleep = short
from builder.release.command import main
main()
"""
# Another command renders the card and extends the release while the first shards are sent.
CHANGED_MEANWHILE = """
import sys
from pathlib import Path
from builder.release.hub import Repository
from builder.release.command import main
sent = Repository.commit
def commit(*arguments):
    for name in ("README.md", "manifest.json"):
        with (Path(sys.argv[2]) / name).open("a") as file:
            file.write(" ")
    sent(*arguments)
Repository.commit = commit
main()
"""
READ = """
import sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], "32", split="train")
print(len(rows), rows[0]["image"].size, sorted(set(rows["label"])))
where = {"split": "train", "revision": sys.argv[2]}
streamed = iter(load_dataset(sys.argv[1], "16", streaming=True, **where))
print(next(streamed)["image"].size, sum(1 for _ in streamed) + 1)
"""


@pytest.fixture(scope="module")
def release(stand_in_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards a resolution, three resolutions."""
    folder = tmp_path_factory.mktemp("publish") / "release"
    build = ["build-dataset", "--recipe", stand_in_recipe, "--per-class", "5", "--out", folder]
    assert run(build).returncode == 0
    return folder


@pytest.fixture
def hub() -> Iterator[tuple[Hub, str]]:
    state = Hub()
    server, address = state.serve()
    yield state, address
    server.shutdown()
    server.server_close()


def python(code: str, *arguments: str | Path, address: str, home: Path):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(address, home),
        capture_output=True,
        text=True,
        check=False,
    )


def publish(release: Path | str, address: str, home: Path, *options: str):
    return python(PUBLISH, "publish", release, REPO, "--json", *options, address=address, home=home)


def local(release: Path) -> dict[str, bytes]:
    """What ought to be published: everything but the sidecars."""
    files = {p.relative_to(release).as_posix(): p for p in release.rglob("*") if p.is_file()}
    return {n: p.read_bytes() for n, p in files.items() if not n.startswith("sidecars/")}


def test_published_and_read_back(release: Path, hub: tuple[Hub, str], tmp_path: Path):
    state, address = hub
    result = publish(release, address, tmp_path / "home")
    assert result.returncode == 0, result.stderr
    tag = json.loads(result.stdout)["tag"]
    assert state.published(REPO) == state.published(REPO, tag) == local(release)
    *data, last = state.commits
    assert {"README.md", "manifest.json"} <= set(last)
    assert not {"README.md", "manifest.json"} & {path for paths in data for path in paths}
    assert not any(path.endswith(".parquet") for path in last)
    read = python(READ, REPO, tag, address=address, home=tmp_path / "reader")
    assert read.stdout.splitlines() == ["15 (32, 32) [0, 1, 2]", "(16, 16) 15"], read.stderr


@pytest.mark.parametrize("fault", ["429", "503", "500", "cut", "lost"])
def test_a_fault_at_every_kind_of_call(
    release: Path, hub: tuple[Hub, str], tmp_path: Path, fault: str
):
    state, address = hub
    state.faults = {call: [fault] for call in UPLOADS}
    result = publish(release, address, tmp_path / "home")
    assert result.returncode == 0, result.stderr
    assert sorted(state.injected) == sorted((call, fault) for call in UPLOADS)
    assert state.published(REPO) == local(release)
    shards = [shard.sha256 for shard in read_manifest(release).shards]
    at_puts = sum(call == "put" for call, _ in state.injected)
    assert sorted(state.puts) == sorted(set(shards))
    assert sum(state.puts.values()) <= len(set(shards)) + at_puts
    # The Hub had the whole of an upload whose answer was lost, and nobody could know.
    repeated = sum(state.completed.values()) - len(set(shards))
    assert repeated == (1 if fault == "lost" else 0)
    assert len(state.commits) == len({tuple(paths) for paths in state.commits})
    if fault == "429":
        assert "waited 2" in result.stderr  # Retry-After: 1, and a second more


def test_killed_and_rerun_repeats_no_completed_upload(
    release: Path, hub: tuple[Hub, str], tmp_path: Path
):
    state, address = hub
    state.faults = {"commit": ["503"] * 3}
    command = [sys.executable, "-c", "from builder.release.command import main; main()"]
    first = subprocess.Popen(
        [*command, "publish", str(release), REPO],
        env=environment(address, tmp_path / "home"),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not state.calls["commit"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    state.faults.clear()
    completed = dict(state.completed)
    assert completed
    assert state.published(REPO) == {}
    assert publish(release, address, tmp_path / "home").returncode == 0
    assert state.published(REPO) == local(release)
    assert set(state.completed.values()) == {1}
    calls = state.calls["put"], len(state.commits)
    again = publish(release, address, tmp_path / "home")
    assert json.loads(again.stdout)["uploaded"] == 0
    assert (state.calls["put"], len(state.commits)) == calls


def test_what_fails_for_good_says_how_to_go_on(release: Path, hub: tuple[Hub, str], tmp_path: Path):
    state, address = hub
    state.faults = {"commit": ["503"] * 100}
    result = publish(release, address, tmp_path / "home")
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: publishing stopped: the Hub answers 503")
    assert f"go on with `release publish {release} {REPO}`" in last
    state.faults = {"tree": ["403"]}
    refused = publish(release, address, tmp_path / "home")
    assert "no right to write someone/colours" in refused.stderr.splitlines()[-1]


def test_an_extended_release_adds_what_is_new(
    release: Path, stand_in_recipe: Path, hub: tuple[Hub, str], tmp_path: Path
):
    state, address = hub
    grown = tmp_path / "release"
    shutil.copytree(release, grown)
    assert publish(grown, address, tmp_path / "home").returncode == 0
    before = state.calls["put"]
    build = ["build-dataset", "--recipe", stand_in_recipe, "--per-class", "6", "--out", grown]
    assert run(build).returncode == 0
    assert publish(grown, address, tmp_path / "home", "--tag", "v2").returncode == 0
    assert state.published(REPO, "v2") == local(grown)
    assert state.calls["put"] - before == 3 * 2
    assert_loads_while_shards_are_added(state, grown, tmp_path / "half")
    assert len([revision for revision in state.repos[REPO] if revision != "main"]) == 2
    taken = publish(release, address, tmp_path / "home", "--tag", "v2")
    assert taken.returncode == 2


def assert_loads_while_shards_are_added(state: Hub, grown: Path, half: Path) -> None:
    """The first commit of an extension has the README name the files that were there before."""
    pinned = {"README.md", "manifest.json"}
    first, *data, last = state.commits[-state.commits[::-1].index(sorted(pinned)) - 1 :]
    assert set(first) == pinned <= set(last)
    assert data
    readme = next(b for b in state.blobs.values() if b.startswith(b"---") and b"*.par" not in b)
    shutil.copytree(grown, half)
    (half / "README.md").write_bytes(readme)
    assert len(load_dataset(str(half), "32", split="train", cache_dir=f"{half}-cache")) == 15


def test_what_is_not_published(release: Path, hub: tuple[Hub, str], tmp_path: Path):
    state, address = hub
    damaged = tmp_path / "damaged"
    shutil.copytree(release, damaged)
    shard = damaged / read_manifest(damaged).shards[0].path
    content = shard.read_bytes()
    os.truncate(shard, 10)
    result = publish(damaged, address, tmp_path / "home")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "is damaged or unfinished" in result.stderr
    shard.write_bytes(bytes([*content[:-20], content[-20] ^ 1, *content[-19:]]))
    verified = publish(damaged, address, tmp_path / "home", "--verify")
    assert (verified.returncode, len(verified.stderr.splitlines())) == (2, 1)
    assert not state.repos
    unseen = publish(damaged, address, tmp_path / "home")
    assert "has other bytes than the manifest says" in unseen.stderr
    assert "README.md" not in state.published(REPO)
    state.repos[REPO]["main"] = {"32/other.parquet": "0" * 64}
    state.blobs["0" * 64] = b""
    mixed = publish(release, address, tmp_path / "home")
    assert "which is not of this release" in mixed.stderr
    replace(read_manifest(release), kind="real").write(tmp_path / "real")
    real = publish(tmp_path / "real", address, tmp_path / "home")
    assert "holds real images" in real.stderr


def test_a_release_that_changes_meanwhile_is_published_as_it_was(
    release: Path, hub: tuple[Hub, str], tmp_path: Path
):
    state, address = hub
    changing = tmp_path / "release"
    shutil.copytree(release, changing)
    arguments = ("publish", changing, REPO, "--tag", "v1")
    done = python(CHANGED_MEANWHILE, *arguments, address=address, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert state.published(REPO, "v1") == local(release) != local(changing)
    before, repository = replace(read_manifest(release), name="earlier"), Repository(REPO, print)
    with pytest.raises(UserError, match="was changed by another command meanwhile: publish again"):
        publish_release(release, before, repository, None, False, print)


def test_published_from_a_store(
    release: Path, hub: tuple[Hub, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    state, address = hub
    store = FaultyStore()
    try:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.files.put(str(release), f"{BUCKET}/release", recursive=True)
        place = f"s3://{BUCKET}/release"
        result = publish(place, address, tmp_path / "home")
        assert result.returncode == 0, result.stderr
        assert state.published(REPO) == local(release)
        assert json.loads(publish(place, address, tmp_path / "home").stdout)["uploaded"] == 0
        store.files.pipe(f"{place}/{read_manifest(release).shards[0].path}", b"short")
        damaged = publish(place, address, tmp_path / "home")
        assert "is damaged or unfinished" in damaged.stderr
    finally:
        store.close()


def test_more_files_than_a_folder_holds_stand_in_sub_folders(
    release: Path, hub: tuple[Hub, str], tmp_path: Path
):
    state, address = hub
    limits = "import builder.planning.hub_limits as f; f.MOST_IN_FOLDER, f.MOST_FILES = "
    arguments = ["publish", release, REPO, "--json"]
    result = python(
        f"{limits}3, 100\n{PUBLISH}", *arguments, address=address, home=tmp_path / "home"
    )
    assert result.returncode == 0, result.stderr
    tag = json.loads(result.stdout)["tag"]
    files = state.published(REPO, tag)
    original = read_manifest(release)
    assert len(files) == len(original.shards) + 3 + 1 + 3  # indices; markers; README and its like
    assert not [name for name in files if name.startswith("16/train")]
    read = python(READ, REPO, tag, address=address, home=tmp_path / "reader")
    assert read.stdout.splitlines() == ["15 (32, 32) [0, 1, 2]", "(16, 16) 15"], read.stderr
    copy = tmp_path / "copy"
    for name, content in files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    manifest = read_manifest(copy)
    assert manifest.content_sha256 == original.content_sha256
    assert verify_release(copy, manifest, 2, lambda _: None).problems == ()
    read, whole = (index_images(place, "32", "train").read([3]) for place in (copy, release))
    assert list(read) == list(whole)
    (copy / "markers.jsonl").write_bytes(b"")
    shard = manifest.shards[0].path
    found = verify_release(copy, manifest, 2, lambda _: None, frozenset([shard])).problems
    assert [str(problem) for problem in found] == [
        "markers.jsonl: was changed: its SHA-256 is not the manifest's",
        f"{marker_name(shard)}: is missing",
    ]
    with pytest.raises(UserError, match="is a copy as `release publish` lays out very many shards"):
        known_records(copy, [])
    again = python(
        f"{limits}3, 100\n{PUBLISH}", *arguments, address=address, home=tmp_path / "home"
    )
    assert json.loads(again.stdout)["uploaded"] == 0
    many = python(f"{limits}3, 12\n{PUBLISH}", *arguments, address=address, home=tmp_path / "home")
    assert "would be 19 files on the Hub, which takes 12: build it with more" in many.stderr
