"""What is printed and recorded: no secrets out of addresses, no escape sequences out of names."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from builder.build_dataset import build_dataset
from builder.cluster.worker import _failure
from release.commands.command import fail, say
from release.commands.terminal import printable, table_cell
from release.errors import UserError, redacted
from release.files.storage import release_path
from release.layout.findings import Problem

SECRET = "hunter2x"
ADDRESSES = [
    f"https://user:{SECRET}@host/data",
    f"https://user:{SECRET}@host:8080/data",
    f"https://:{SECRET}@host/data",
    f"s3://AKIAEXAMPLE:ab/{SECRET}/c@bucket/prefix",
    f"ftp://user:p@{SECRET}@host/x",
    f"https://abcdefghijklmnop{SECRET}@host/x",
    f"https://host/x?token={SECRET}",
    f"https://host/x?a=1&api_key={SECRET}&b=2",
    f"https://host/x?X-Amz-Signature={SECRET}&X-Amz-Date=1",
    f"https://host/x?sv=1&sig={SECRET}",
    f"https://host/x?Password={SECRET}",
]
PLAIN = [
    "https://host:8080/pkg@1.0",
    "https://host/x?revision=main&page=2",
    "s3://my-bucket/fashion-mnist-32",
    "ssh://git@example.org/x",
    "tcp://127.0.0.1:8786",
    "abfs://a-container-of-images@account.dfs.core.windows.net/x",
    "a = b, key=5, me@example.org",
    "--set epochs=10",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_secret_in_an_address_is_not_shown(address: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        fail(f"{address}: the store failed (GET '{address}'): rerun")
    error = capsys.readouterr().err
    assert SECRET not in error
    assert "***" in error
    assert error.endswith("rerun\n")


@pytest.mark.parametrize("text", PLAIN)
def test_an_address_without_secrets_stays_as_it_is(text: str):
    assert redacted(text) == text


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_release_is_not_named_by_an_address_with_a_secret(address: str):
    with pytest.raises(UserError, match="leave the secret out of the address") as error:
        release_path(address)
    assert SECRET not in str(error.value)


def test_real_data_is_not_named_by_an_address_with_a_secret(tmp_path: Path):
    with pytest.raises(UserError, match="leave the secret out of the address"):
        build_dataset(real=ADDRESSES[0], out=str(tmp_path / "release"))
    assert not (tmp_path / "release").exists()


def test_why_a_shard_failed_is_recorded_without_secrets(monkeypatch: pytest.MonkeyPatch):
    class Worker:
        address = "tcp://127.0.0.1:1"

    class Job:
        path = "16/train-0.parquet"

    monkeypatch.setattr("distributed.get_worker", Worker)
    try:
        raise RuntimeError(f"GET {ADDRESSES[0]} gave 500")
    except RuntimeError as error:
        failure = _failure(Job(), error)  # type: ignore[arg-type]
    assert SECRET not in json.dumps([failure.reason, failure.detail])
    assert "https://***@host/data gave 500" in failure.reason


ESCAPES = {
    "\x1b[31mred\x1b[0m": "\\x1b[31mred\\x1b[0m",
    "\x1b]8;;http://x\x07link": "\\x1b]8;;http://x\\x07link",
    "a\rb\x08c": "a\\rb\\x08c",
    "a\nb\tc": "a\\nb\\tc",
    "\u202etxt.exe": "\\u202etxt.exe",
    "\x9b31m": "\\x9b31m",
    "\udc80": "\\udc80",
    "K\u00e4se \u2026\u00a0\u65e5\u672c": "K\u00e4se \u2026\u00a0\u65e5\u672c",
    "": "",
}


@pytest.mark.parametrize(("text", "shown"), ESCAPES.items())
def test_an_escape_sequence_is_spelled_out(text: str, shown: str):
    assert printable(text) == shown
    assert str(Problem("x", text)) == f"x: {shown}"


def test_errors_and_remarks_spell_escapes_out(capsys: pytest.CaptureFixture[str]):
    say("of \x1b[2Jrelease\x07")
    with pytest.raises(SystemExit):
        fail("unknown class '\x1b[31mred'")
    assert capsys.readouterr().err.splitlines() == [
        "of \\x1b[2Jrelease\\x07",
        "error: unknown class '\\x1b[31mred'",
    ]


def test_a_table_shows_markup_and_escapes_as_they_are():
    table = Table("name")
    table.add_row(table_cell("[red]x[/red]\x1b[31m"))
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    assert "[red]x[/red]\\x1b[31m" in out.getvalue()
