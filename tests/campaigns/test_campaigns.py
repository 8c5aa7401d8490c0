"""A part of the campaigns of benchmarks/: kills at writes, and bad input, for every command.

And that a change of the code leaves releases, checkpoints and scores as they were.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns.bad_inputs import GOOD, VERDICTS_RIGHT, cases, try_case
from tests.campaigns.kill_trials import TRIALS, KillSite, hub_environment, spread
from tests.command_server import CommandServer
from tests.golden import EXPECTED, close_facts, exact_facts
from tests.servers.hub_server import Hub
from tests.sets.miniature import make_miniature

EVERY = 16  # of so many cases of bad input one is tried,
MOST = 12  # and of each command no more; the campaign tries all
Place = tuple[CommandServer, Path, Hub]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where commands start at once, the miniature, and the Hub that they find."""
    folder, hub = tmp_path_factory.mktemp("campaigns"), Hub()
    listener, address = hub.serve()
    with CommandServer(hub_environment(address, folder / "home")) as server:
        make_miniature(server, folder / "whole")
        yield server, folder / "whole", hub
    listener.shutdown()
    listener.server_close()


def test_releases_checkpoints_and_scores_are_what_they_were(place: Place):
    expected = json.loads(EXPECTED.read_text())
    assert exact_facts(place[1]) == expected["exact"]
    assert close_facts(place[1]) == pytest.approx(expected["close"], rel=1e-3)


@pytest.mark.parametrize("name", [name for name, trial in TRIALS.items() if trial.tried])
def test_killed_at_a_write_and_run_again_it_ends_as_undisturbed(place: Place, name: str):
    server, whole, hub = place
    site = KillSite(server, whole, hub, name)
    for write in spread(len(site.operations), site.trial.tried):
        kill = site.kill(write)
        assert kill is None or (kill.wrong, kill.lost) == (None, []), kill


@pytest.mark.parametrize("command", GOOD)
def test_bad_input_is_one_line_and_harms_nothing(place: Place, command: str):
    server, whole, _ = place
    own = [case for case in cases(whole) if case.command == command]
    for number in spread(len(own), max(2, min(MOST, len(own) // EVERY))):
        row = try_case(server, whole, own[number - 1])
        assert row["verdict"] in VERDICTS_RIGHT, row
