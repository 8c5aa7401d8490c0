"""A Hub that is out of reach costs one line and no minute of retries, whatever wanted it."""

import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from builder.release.hub import require_hub
from generation.pretrained.diffusers_folder import reaching_hub
from metrics.features.networks import timm_network
from release.errors import UserError
from release.files.hub import asking_hub, out_of_reach
from release.files.storage import release_path
from release.real_sources.opening import open_source
from tests.servers.hub_server import Hub

SOON_S = 20  # on a busy machine; retries would take a minute


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which nothing listens, as the Hub's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return address


def test_a_hub_that_answers_is_in_reach_whatever_it_says(monkeypatch: pytest.MonkeyPatch):
    server, address = Hub().serve()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with asking_hub() as why:
        assert why == ""
        assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr("builder.release.hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no right to write me/made: log in with `hf auth login`"):
        require_hub(Path("made"), "me/made")
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert out_of_reach() == "HF_HUB_OFFLINE is set"


def checkpoint() -> None:
    from huggingface_hub import snapshot_download

    with reaching_hub("owner/model", None, "or name a folder"):
        snapshot_download("owner/model")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: open_source("owner/set"), "real data 'owner/set' is not at hand ("),
        (checkpoint, "owner/model is not on this machine and the Hub did not give it ("),
        (lambda: timm_network("resnet18.a1_in1k", None), "the weights of timm's resnet18"),
        (lambda: require_hub(Path("made"), "me/made"), "made is not published ("),
        (
            lambda: release_path("hf://datasets/me/made"),
            "hf://datasets/me/made cannot be reached (",
        ),
    ],
)
def test_who_asks_a_hub_out_of_reach_is_told_at_once(
    no_hub: str,
    capfd: pytest.CaptureFixture[str],
    ask: object,
    told: str,
):
    assert callable(ask)
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        ask()
    assert time.monotonic() - began < SOON_S
    assert str(refused.value).startswith(told)
    assert f"{no_hub} is out of reach" in str(refused.value)
    assert "etrying" not in capfd.readouterr().err
    assert not constants.HF_HUB_OFFLINE  # another call may find it
