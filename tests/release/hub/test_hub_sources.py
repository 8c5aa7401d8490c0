"""Data sets of the Hub as real images, from a server on this machine that speaks its protocol."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.servers.hub_server import Hub
from tests.sets.pictures import table

CARD = "---\nconfigs:\n" + "".join(
    f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*.parquet\n"
    for name in ("full", "small")
)
# Each source's first label, class and remark, or its error.
OPEN = """
import json, sys
from release.errors import UserError
from release.real_sources.opening import open_source
for name in sys.argv[1:]:
    try:
        source = open_source(name)
        split = source.splits["train"]
        found = [source.name, source.classes[split.labels[0]].wnid, len(split.read(0))]
        print(json.dumps([*found, source.revision]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[Hub, str]]:
    hub = Hub()
    server, address = hub.serve()
    yield hub, address
    server.shutdown()
    server.server_close()


def put(hub: Hub, repo: str, files: Mapping[str, bytes]) -> None:
    oids = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    hub.blobs |= {oids[path]: data for path, data in files.items()}
    hub.repos[repo] = {"main": oids}


def parquet(folder: Path, label: int) -> bytes:
    path = folder / f"{label}.parquet"
    table([label], ["tench, Tinca tinca", "goldfish, Carassius auratus"]).to_parquet(path)
    return path.read_bytes()


def test_configurations_scripts_and_what_is_not_there(hub: tuple[Hub, str], tmp_path: Path):
    server, address = hub
    two = {f"{c}/train.parquet": parquet(tmp_path, i) for i, c in enumerate(("full", "small"))}
    put(server, "org/two", two | {"README.md": (CARD + "---\n").encode()})
    put(server, "org/script", {"script.py": b"import datasets"})
    put(server, "org/broken", {"train.parquet": b"PAR1 cut short"})
    names = ["org/two", "org/two:small", "org/two:huge", "org/script", "org/broken", "org/absent"]
    names.append("org/two:full?classes_from=imagenet-1k")
    result = subprocess.run(
        [sys.executable, "-c", OPEN, *names],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": address,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Generating" not in result.stderr  # bars are for terminals
    several, small, huge, script, broken, absent, joined = map(
        json.loads, result.stdout.splitlines()
    )
    assert (
        "has 2 configurations: name one, as --real org/two:full does; it has full, small" in several
    )
    assert small[:2] == ["org--two", "goldfish, Carassius auratus"]
    assert len(small[3]) == 40  # the commit
    assert joined[:2] == ["imagenet-1k", "n01440764"]
    assert "'huge' not found" in huge
    for name, error in (("org/script", script), ("org/broken", broken), ("org/absent", absent)):
        assert error.startswith(f"real data '{name}' is not at hand ("), error
        assert "\n" not in error
