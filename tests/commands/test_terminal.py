"""What a command says: nearest names, missing files, versions, JSON errors, pipes, packages."""

import json
import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from classifiers.study.study_file import BUILTIN as STUDIES
from generation.training.recipe import BUILTIN
from release.commands import command, own_packages
from release.commands.command import Builtin, run_command
from release.commands.options import Json
from release.commands.own_packages import require_own_packages
from release.commands.surroundings import expanded
from release.commands.toml_recipes import recipe_names_in
from release.errors import LISTED, UserError, unknown_name
from tests.conftest import ROOT, run


def test_an_unknown_name_ends_with_the_nearest():
    error = str(unknown_name("recipe", "Fashion-Mnst", ["imagenet-if", "fashion-mnist"]))
    assert error == (
        "unknown recipe 'Fashion-Mnst'; known: fashion-mnist, imagenet-if; "
        "did you mean 'fashion-mnist'?"
    )
    assert "did you mean" not in str(unknown_name("recipe", "zzz", ["fashion-mnist"]))


def test_an_unknown_name_may_be_near_one_that_is_not_listed():
    error = str(unknown_name("class", "tenhc", ["n01440764"], ["tench"]))
    assert error == "unknown class 'tenhc'; known: n01440764; did you mean 'tench'?"


def test_where_nothing_is_known_it_is_said():
    assert str(unknown_name("split", "x", [])) == "unknown split 'x'; there is none"


def test_a_long_list_and_a_long_name_are_cut():
    names = [f"n{i:04}" for i in range(1000)]
    error = str(unknown_name("class", "x" * 5000, names))
    assert len(error) < 700
    assert f"n{LISTED - 1:04} and {1000 - LISTED} more" in error


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """A command of one option run in this process: its exit code, output and errors."""

    def example(colour: str = "red", as_json: Json = False) -> None:  # noqa: ARG001
        raise UserError(f"no colour {colour}")

    monkeypatch.setattr(sys, "argv", ["example", *arguments])
    monkeypatch.setattr("atexit.register", lambda *_: None)  # this process goes on
    with pytest.raises(SystemExit) as end:
        run_command(example, Builtin(BUILTIN))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("arguments", [("--json",), ("--json", "--no-such-option")])
def test_an_error_under_json_is_a_document_beside_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
):
    monkeypatch.setattr(command, "require_own_packages", lambda: None)
    arguments = ("--colour", "blue", *arguments)
    code, out, err = run_here(monkeypatch, capsys, *arguments)
    assert code == 2
    assert err == f"error: {json.loads(out)['error']}\n"


def test_an_error_without_json_leaves_the_output_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run_here(monkeypatch, capsys) == (2, "", "error: no colour red\n")


def test_a_page_given_by_mistake_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    code, out, err = run_here(monkeypatch, capsys, "--colour", "x" * 5000, "--json")
    assert (code, len(err.splitlines())) == (2, 1)
    assert len(err) < 500
    assert len(json.loads(out)["error"]) < 500


def test_every_command_says_its_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    code, out, err = run_here(monkeypatch, capsys, "--version")
    assert (code, err) == (0, "")
    assert out.endswith("(synthetic-imagenet) 0.1.0\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_the_built_in_recipes_are_listed_with_what_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
):
    arguments = ("--list-recipes", "--json") if as_json else ("--list-recipes",)
    code, out, err = run_here(monkeypatch, capsys, *arguments)
    assert (code, err) == (0, "")
    names = list(json.loads(out)) if as_json else [line.split()[0] for line in out.splitlines()]
    assert names == sorted(path.stem for path in BUILTIN.glob("*.toml"))
    assert "text-conditioned pixel U-Net" in out


@pytest.mark.parametrize("name", ["build-dataset", "finetune-generator", "train-classifier"])
def test_commands_that_take_a_recipe_list_theirs(name: str):
    assert "fashion-mnist" in run([name, "--list-recipes"]).stdout


def test_studies_are_listed_and_shown_by_their_own_word():
    listed = run(["run-study", "--list-studies"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == recipe_names_in(STUDIES)
    shown = run(["run-study", "--show-study", "minutes"]).stdout
    assert shown == (STUDIES / "minutes.toml").read_text()
    refused = run(["run-study", "--show-study", "minute"])
    assert refused.returncode == 2
    assert "unknown study 'minute'" in refused.stderr


def test_a_recipe_is_shown_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    code, out, err = run_here(monkeypatch, capsys, "--show-recipe", "small-16")
    assert (code, out, err) == (0, (BUILTIN / "small-16.toml").read_text(), "")
    code, out, err = run_here(monkeypatch, capsys, "--show-recipe", "small-64")
    assert out.startswith(
        "# small-32, which small-64 changes:\n#\n# # For any labelled images: enl"
    )
    assert out.endswith((BUILTIN / "small-64.toml").read_text())
    tomllib.loads(out)
    code, out, err = run_here(monkeypatch, capsys, "--show-recipe", "smal-64")
    assert (code, out) == (2, "")
    assert err.endswith("; did you mean 'small-64'?\n")


def test_bytes_that_are_no_text_are_refused_by_name():
    with pytest.raises(UserError, match="no text in UTF-8"):
        expanded(["--out", "b\udce9"])


MODULES = [
    *("builder.build_dataset", "builder.release.command", "cards.leaderboard"),
    *("cards.render_card", "classifiers.run_study", "classifiers.train_classifier"),
    *("generation.finetune_generator", "metrics.compare_scores", "metrics.score_release"),
    *("metrics.select_checkpoint", "metrics.select_sampler", "cards.try_images"),
]


@pytest.mark.parametrize("module", MODULES)
def test_each_command_is_a_module_that_runs(module: str):
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    assert text.rstrip().endswith("main()")
    assert 'if __name__ == "__main__":' in text


def test_a_reader_that_leaves_changes_no_exit_code():
    shell = f"{Path(sys.executable).parent / 'build-dataset'} --help; echo $? >&2"
    reader = subprocess.run(
        ["bash", "-c", f"({shell}) | true"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert reader.stderr == "0\n"


@pytest.mark.parametrize("kind", ["folder", "module"])
def test_a_package_of_another_place_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
):
    place = tmp_path / ("metrics" if kind == "folder" else "metrics.py")
    spec = types.SimpleNamespace(
        submodule_search_locations=[str(place)] if kind == "folder" else None, origin=str(place)
    )
    require_own_packages()
    monkeypatch.setattr(own_packages, "find_spec", lambda name: spec if name == "metrics" else None)
    monkeypatch.setattr(own_packages, "PACKAGES", ("metrics",))
    with pytest.raises(UserError, match="hides this project's package 'metrics'"):
        require_own_packages()


def test_a_folder_of_a_packages_name_stops_a_command_in_one_line(tmp_path: Path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/__init__.py").touch()
    result = run(["build-dataset", "--version"], PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert f"{tmp_path / 'cards'} hides this project's package 'cards'" in result.stderr


def test_completion_knows_the_options():
    result = run(
        ["build-dataset"],
        _BUILD_DATASET_COMPLETE="complete_bash",
        COMP_WORDS="build-dataset --rec",
        COMP_CWORD="1",
    )
    assert result.stdout.strip() == "--recipe"
