"""ImageNet in miniature, all 1000 classes, from its layouts to a data set on the Hub and back.

The short form of benchmarks/imagenet_rehearsal.py; each command must end well, as typed.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from release.real_sources.opening import open_source
from tests.campaigns.kill_trials import hub_environment
from tests.command_server import CommandServer
from tests.rehearsal.rehearsal import SHORT, steps, write_data, write_inputs
from tests.servers.hub_server import Hub


@pytest.fixture
def hub() -> Iterator[tuple[Hub, str]]:
    hub = Hub()
    server, address = hub.serve()
    yield hub, address
    server.shutdown()
    server.server_close()


def test_imagenet_walked_end_to_end(hub: tuple[Hub, str], tmp_path: Path) -> None:
    state, address = hub
    images = write_inputs(tmp_path, SHORT, state)
    variables = {**hub_environment(address, tmp_path / "home")}
    variables["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    with CommandServer(variables) as server:
        for step in steps(SHORT, images):
            ended = server.run(step.words, tmp_path, timeout=600)
            assert ended.code == 0, (step.shown, ended)
            assert "Traceback" not in ended.err, (step.shown, ended)
            step.check(tmp_path, ended.out)


def test_the_data_alone_is_imported_as_imagenet(tmp_path: Path) -> None:
    commands = write_data(tmp_path, replace(SHORT, per_class=1))
    source = open_source(str(tmp_path / "imagenet"))
    assert {name: len(split.labels) for name, split in source.splits.items()} == {
        "train": 1000,
        "validation": 1000,
    }
    named = [word for line in commands for word in line.split() if word.endswith(".toml")]
    assert all((tmp_path / name).is_file() for name in named)
