"""Every console command: help with an example that its own options accept, and --json."""

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.forked_commands import run as run_forked

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUBCOMMANDS = ("verify", "repair", "extend", "view", "encode", "reproduce", "publish")
RELEASE = [f"release {name}" for name in SUBCOMMANDS]
COMMANDS = sorted([*PROJECT["scripts"], *RELEASE])
# Those whose help shows before numpy, pyarrow and Pillow are there, a third of a second later.
LIGHT = (
    *("build-dataset", "compare-scores", "evaluate-representation", "evaluate-robustness"),
    *("leaderboard", "run-study", "try-images"),
)
HEAVY = {"numpy", "pyarrow", "PIL", "torch", "scipy", "dask", "fsspec"}


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
    result = run_forked([*command.split(), "--no-such-option", str(tmp_path)])
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "given",
    [
        ["try-images", "images", "--minutes"],
        ["finetune-generator", "--recipe", "imagenet-rin-64", "--dry-run", "--utilisation"],
        ["train-classifier", "--train", "a", "--test", "b", "--out", "c.json", "--cache-gb"],
    ],
    ids=lambda given: given[0],
)
@pytest.mark.parametrize("number", ["inf", "nan"])
def test_a_number_that_is_not_finite_is_one_line(given: list[str], number: str):
    result = run_forked([*given, number])
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert given[-1] in line


def test_help_of_light_commands_imports_nothing_heavy():
    modules = [PROJECT["scripts"][command].split(":")[0] for command in LIGHT]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules.keys() & {HEAVY})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
