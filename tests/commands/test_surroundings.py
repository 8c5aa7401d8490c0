"""Commands where a home, a locale or a umask is not what it usually is; caches that many share."""

import io
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.request import pathname2url

import pytest
import torch

from classifiers import train_classifier
from generation import finetune_generator
from generation.pretrained.downloads import download
from generation.prompts.prompt_cache import PromptCache
from release.commands import surroundings
from release.commands.surroundings import expanded, settle_in
from release.errors import UserError


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As a user without an entry in the system's list, in a container; returns /tmp's stand-in."""

    def no_entry(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def umask() -> Iterator[None]:
    """A group that shares what it makes."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_without_a_home_there_is_one_of_ones_own(
    homeless: Path, capsys: pytest.CaptureFixture[str]
):
    settle_in()
    home = homeless / f"synthetic-imagenet-{os.getuid()}"
    assert Path.home() == home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert capsys.readouterr().err.splitlines() == [
        f"no home folder: caches go to {home}; set HOME for another"
    ]
    settle_in()
    assert capsys.readouterr().err == ""


def test_another_users_folder_is_no_home(homeless: Path):
    (homeless / "theirs").mkdir()
    (homeless / f"synthetic-imagenet-{os.getuid()}").symlink_to(homeless / "theirs")
    with pytest.raises(UserError, match="is another's: set HOME"):
        settle_in()


def test_a_stream_that_knows_ascii_only_takes_any_text(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    settle_in()
    print("Äpfel … \udce9")
    sys.stdout.flush()
    assert raw.getvalue() == rb"\xc4pfel \u2026 \udce9" + b"\n"


def test_a_tilde_is_the_home_in_every_argument(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded(
        ["~", "~/a", "--out=~/x", "--out=~", "--out", "a~b", "~nobody-of-that-name/x", "--a=b/~/c"]
    ) == [
        *("/home/me", "/home/me/a", "--out=/home/me/x", "--out=/home/me"),
        *("--out", "a~b", "~nobody-of-that-name/x", "--a=b/~/c"),
    ]


@pytest.mark.usefixtures("umask")
def test_caches_have_the_rights_that_the_umask_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "weights").write_bytes(b"w" * 100)
    target = tmp_path / "cache/synthetic-imagenet/models/weights"
    download(f"file://{pathname2url(str(tmp_path / 'weights'))}", target)
    filled_cache(["a pear"])
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o664}


def filled_cache(prompts: list[str]) -> PromptCache:
    cache = PromptCache("an encoder")

    def encode(texts: list[str]) -> dict[str, torch.Tensor]:
        tokens = torch.arange(len(texts) * 6, dtype=torch.float16).reshape(len(texts), 2, 3)
        return {"tokens": tokens, "lengths": torch.arange(len(texts))}

    cache.fill(prompts, encode)
    return cache


@pytest.mark.parametrize("harm", ["bit", "truncated", "empty"])
def test_a_damaged_embedding_is_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prompts = ["a pear", "a plum"]
    cache = filled_cache(prompts)
    assert cache.missing(prompts) == []
    good = cache.load(prompts)
    path = next(tmp_path.rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes({"bit": bytes(content), "truncated": content[:-3], "empty": b""}[harm])
    (missing,) = cache.missing(prompts)
    with pytest.raises(UserError, match="run it again"):
        cache.load(prompts)
    filled_cache(prompts)
    assert missing in prompts
    assert all(torch.equal(cache.load(prompts)[name], tensor) for name, tensor in good.items())


@pytest.mark.parametrize("module", [finetune_generator, train_classifier])
def test_threads_of_a_training_sleep_while_they_wait_unless_told_otherwise(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_command", lambda *_: None)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    module.main()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    module.main()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
