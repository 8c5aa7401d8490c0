"""Recipes, class lists and releases small enough to build in a test."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.faulty_store import FaultyStore

# As in the builder's workers: with more threads a row's last bit depends on its place in a batch.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent
LONGEST = ("tests/rehearsal/", "tests/campaigns/", "tests/cards/test_trial.py")
STAND_IN_RECIPE = """
name = "stand-in"
description = "flat colours"
classes = "{classes}"
dataset = "test"
regime = "A"
license = "mit"
seed = 7

[shard]
classes = 2
indices = 4

[[stage]]
resolution = 8
generator = "stand_in"
checkpoint = "8"
batch = 3

[[stage]]
resolution = 16
generator = "stand_in"
checkpoint = "16"
batch = 5

[[stage]]
resolution = 32
generator = "stand_in"
checkpoint = "32"
batch = 5
""".replace('"stand_in"', '"tests.stand_in"')

FACTS = """sampler_source = "tried on three images"
model = { name = "Flat", license = "made-up-1.0", images = "For tests only.", source = "a test" }
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, one would keep a single core busy in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a test that was run again failed of at first."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first failure of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


def state_facts(recipe: str, stages: int = -1) -> str:
    """The recipe with what a card must know of its first stages, by default of all."""
    return recipe.replace("batch = ", FACTS + "batch = ", stages)


@pytest.fixture(autouse=True)
def _hub_as_before() -> Iterator[None]:
    """A dry run in this process takes the Hub away from all that comes after."""
    before = os.environ.pop("HF_HUB_OFFLINE", None)
    yield
    os.environ.pop("HF_HUB_OFFLINE", None)
    if before is not None:
        os.environ["HF_HUB_OFFLINE"] = before


@pytest.fixture(scope="session")
def class_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes as a CSV."""
    path = tmp_path_factory.mktemp("classes") / "three.csv"
    names = ["apple", "pear", "plum"]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "wnid", "name", "prompt"])
        rows.writerows([i, f"c{i}", name.title(), name] for i, name in enumerate(names))
    return path


@pytest.fixture(scope="session")
def stand_in_recipe(class_list: Path) -> Path:
    """A chain of three stages that need no torch: 8, 16, 32 pixels."""
    path = class_list.parent / "stand-in.toml"
    path.write_text(STAND_IN_RECIPE.format(classes=class_list))
    return path


@pytest.fixture(scope="session")
def store() -> Iterator["FaultyStore"]:
    """An S3 server with a bucket, which this process and its commands find.

    One for all tests of a process: file systems that were opened remember where the server was.
    """
    from tests.servers.faulty_store import FaultyStore

    store = FaultyStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store
    store.close()


@pytest.fixture(scope="session")
def s3(store: "FaultyStore") -> dict[str, str]:
    """The environment by which a command, or this process, finds the S3 server."""
    return store.environment


@pytest.fixture(scope="module")
def _worker_forks() -> Iterator[None]:
    """Workers of this process start in a moment."""
    from tests.forked_commands import worker_forks

    with worker_forks():
        yield


def run(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a console command of the project as a user would; tests/forked_commands.py is faster."""
    program = Path(sys.executable).parent / str(command[0])
    return subprocess.run(
        [program, *map(str, command[1:])],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def release_bytes(release: Path) -> dict[str, bytes]:
    """All of a release that must not differ from run to run: everything but the sidecars."""
    files = (p for p in release.rglob("*") if p.is_file())
    found = {str(p.relative_to(release)): p.read_bytes() for p in files}
    return {name: data for name, data in found.items() if not name.startswith("sidecars/")}


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3: dict[str, str]) -> str:  # noqa: ARG001
    """Somewhere to write: one of each kind."""
    name = tmp_path.name
    from tests.servers.faulty_store import BUCKET

    kinds = {"folder": str(tmp_path), "memory": f"memory://{name}", "s3": f"s3://{BUCKET}/{name}"}
    return kinds[request.param]
