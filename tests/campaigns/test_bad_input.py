"""Bad input: one clear line on standard error, exit code 2, no traceback, nothing lost."""

import csv
from pathlib import Path

import pytest

from tests.conftest import release_bytes
from tests.conftest import run as run_anew
from tests.forked_commands import run

BUILD = ["build-dataset", "--recipe"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*BUILD, "fashion"], "unknown recipe 'fashion'; known: fashion-mnist"),
        ([*BUILD, "absent.toml"], "recipe absent.toml does not exist"),
        ([*BUILD, "fashion-mnist", "--res", "64"], "no stage at --res 64; it has 16, 32"),
        ([*BUILD, "fashion-mnist", "--per-class", "0"], "--per-class 0: give at least 1"),
        ([*BUILD, "fashion-mnist", "--per-class", "many"], "should be a valid integer"),
        ([*BUILD, "fashion-mnist", "--classes", "sock"], "unknown class 'sock'; known: ankle-boot"),
        ([*BUILD, "fashion-mnist", "--workers", "0"], "--workers 0: give at least 1"),
        (["build-dataset", "--real", "no/such"], "real data 'no/such' is not at hand"),
        (["build-dataset", "--colour"], "No such option: --colour"),
        (["build-dataset", "--res", "1024"], "--recipe fashion-mnist"),
    ],
)
def test_one_line_and_exit_code_two(arguments: list[str], expected: str, tmp_path: Path):
    result = run_anew([*arguments, "--out", tmp_path / "release"], HF_HUB_OFFLINE="1")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert expected in result.stderr
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("kind", [["--recipe", "fashion-mnist"], ["--real", "fashion-mnist"]])
def test_an_output_that_cannot_be_a_folder(kind: list[str], tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    result = run(["build-dataset", *kind, "--out", tmp_path / "file", "--json"])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert f"--out {tmp_path / 'file'} is a file; name a folder" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_no_space_left_is_one_line_and_rerunning_goes_on(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    build = [*BUILD, stand_in_recipe, "--per-class", "4", "--out", release, "--json"]
    full = run(build, STAND_IN_DISK_FULL="32")
    assert full.returncode == 2
    assert "No space left on device: what is finished is kept" in full.stderr
    assert "Traceback" not in full.stderr
    kept = list(release.glob("markers/*/*.json"))
    assert kept
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert run(build).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def changed(recipe: Path, folder: Path, before: str, after: str) -> Path:
    """A copy of `recipe` with one thing changed."""
    path = folder / "changed.toml"
    text = recipe.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return path


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("seed = 7", "seed = -1", "seed: Input should be greater than or equal to 0"),
        ("seed = 7", "seed = -1", "equal to 0, not -1"),
        ("seed = 7", "colour = 1", "changed.toml: unknown setting 'colour'; known: classes, da"),
        ("batch = 3", "batch = 0", "changed.toml: stage 1: batch: Input should be greater than 0"),
        ('"8"\nbatch = 3', '"8"\nbach = 3', "stage 1: unknown setting 'bach'; known: accept, ba"),
        ("seed = 7", "seed = ", "is not valid TOML"),
        ("resolution = 16", "resolution = 4", "changed.toml: the stages' resolutions must rise"),
        (
            "tests.stand_in",
            "dalle",
            "unknown generator 'dalle'; known: adm, adm-256, adm-64, adm-upsampler, biggan, cdm, "
            "deepfloyd-if, diffusers, dit, edm2, iddpm, jit, ldm, lightning-dit, mar, "
            "mean-flow, pixel-unet, rae, repa, repa-e, repa-e-end-to-end, rin",
        ),
        ('"8"\nbatch = 3', '"8"\nsha256 = "beef"\nbatch = 3', "has the wrong hash"),
        ("three.csv", "four.csv", "does not exist"),
    ],
)
def test_a_wrong_recipe_names_the_field(
    stand_in_recipe: Path, tmp_path: Path, before: str, after: str, expected: str
):
    recipe = changed(stand_in_recipe, tmp_path, before, after)
    result = run([*BUILD, recipe, "--out", tmp_path / "release"])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert expected in result.stderr


def test_another_release_is_not_touched(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    assert run([*BUILD, stand_in_recipe, "--per-class", "2", "--out", release]).returncode == 0
    before = release_bytes(release)
    other = changed(stand_in_recipe, tmp_path, "seed = 7", "seed = 8")
    result = run([*BUILD, other, "--per-class", "2", "--out", release])
    assert result.returncode == 2
    assert "holds another release" in result.stderr
    assert release_bytes(release) == before


def test_shards_of_another_size_are_refused(stand_in_recipe: Path, tmp_path: Path):
    release = tmp_path / "release"
    assert run([*BUILD, stand_in_recipe, "--per-class", "2", "--out", release]).returncode == 0
    other = changed(stand_in_recipe, tmp_path, "indices = 4", "indices = 3")
    result = run([*BUILD, other, "--per-class", "2", "--out", release])
    assert result.returncode == 2
    assert "was built with shards of" in result.stderr


def test_a_stage_whose_checkpoint_makes_another_size(stand_in_recipe: Path, tmp_path: Path):
    other = changed(stand_in_recipe, tmp_path, 'checkpoint = "16"', 'checkpoint = "24"')
    result = run([*BUILD, other, "--per-class", "2", "--out", tmp_path / "release", "--json"])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert "checkpoint 24 makes images of 24 px, its stage in the recipe has" in result.stderr


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_a_folder_of_other_files_is_not_touched(stand_in_recipe: Path, tmp_path: Path, kind: str):
    (tmp_path / "notes.txt").write_text("mine")
    source = ["--real", "fashion-mnist"] if kind == "real" else ["--recipe", stand_in_recipe]
    result = run(["build-dataset", *source, "--out", tmp_path])
    assert result.returncode == 2
    assert "is not empty and holds no release" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["0", "a", "A", "x"], ["1", "b", "B", "x"]], "prompt 'x' is empty or stands twice"),
        ([["0", "a", "A", "x"], ["2", "b", "B", "y"]], "ids must count 0, 1, 2"),
        ([], "no column 'id'"),
    ],
)
def test_a_wrong_class_list(
    stand_in_recipe: Path, tmp_path: Path, rows: list[list[str]], expected: str
):
    path = tmp_path / "classes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "wnid", "name", "prompt"], *rows])
    text = stand_in_recipe.read_text()
    recipe = tmp_path / "recipe.toml"
    lines = [f'classes = "{path}"' if x.startswith('classes = "') else x for x in text.split("\n")]
    recipe.write_text("\n".join(lines))
    result = run([*BUILD, recipe, "--out", tmp_path / "release"])
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert expected in result.stderr
