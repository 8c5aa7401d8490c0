"""Every console command: help with an example that its own options accept, and --json."""

import shlex
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUBCOMMANDS = ("verify", "repair", "extend", "view", "encode", "reproduce", "publish")
RELEASE = [f"release {name}" for name in SUBCOMMANDS]
COMMANDS = sorted([*PROJECT["scripts"], *RELEASE])


def examples(command: str, text: str) -> list[list[str]]:
    """The command lines in a help text, backslash continuations joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith(f"{command} ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_whose_options_exist(command: str):
    text = run([*command.split(), "--help"]).stdout
    assert "--json" in text
    shown = examples(command, text)
    assert shown, f"{command} --help has no example"
    options = {word.split("=")[0] for line in shown for word in line if word.startswith("--")}
    listed = {word for line in text.splitlines() for word in line.split() if word[:2] == "--"}
    assert options <= listed


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line(command: str, tmp_path: Path):
    result = run([*command.split(), "--no-such-option", str(tmp_path)])
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
