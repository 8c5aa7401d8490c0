"""Results that were changed after they were written, and files that are no results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cards.board.board import assemble_board
from cards.leaderboard import leaderboard
from cards.measured.rankings import classifier_rankings
from cards.measured.result_folder import read_folder
from cards.measured.tables import training_table
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import Result, read_result
from tests.cards.made_up_results import a_source, write_run

LABELS = np.repeat(np.arange(10), 20)
NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A result of 200 images with its predictions; 80% are right."""
    path = tmp_path / "run.json"
    write_run(path, [a_source("made", 100)], np.arange(200) % 5 > 0, LABELS, NAMES, 0)
    return path


def changed(path: Path, where: tuple[Any, ...], value: Any, *, own_hash: bool) -> None:
    """own_hash: with the old one; else without, as results of before had none."""
    content = json.loads(path.read_text())
    at = content
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    if not own_hash:
        del content["result_sha256"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("values", "top1", "value"), 0.999),
        (("subject", "train", 0, "name"), "another"),
        (("seeds", "classifier"), 7),
        (("environment",), {"device": "faster"}),
    ],
)
def test_a_result_that_was_edited_does_not_fit_its_own_hash(
    run: Path, where: tuple[Any, ...], value: Any
) -> None:
    read_result(run)
    changed(run, where, value, own_hash=True)
    with pytest.raises(UserError, match=r"run\.json was changed after it was written"):
        read_folder(run.parent)


def test_hash_of_a_result_knows_no_order_and_no_kind_of_key(tmp_path: Path) -> None:
    values: dict[Any, Any] = {"b": {"é": None, "a": 1e300}, "a": {10: 1, 9: (0.1, 1e-9)}}
    path = tmp_path / "r.json"
    Result("scores", "d", {}, {}, {}, values).write(path)
    assert read_result(path).values["a"]["9"] == [0.1, 1e-9]


def test_results_of_before_the_hash_are_read(run: Path) -> None:
    changed(run, ("seeds", "classifier"), 7, own_hash=False)
    assert read_result(run).seeds == {"classifier": 7}


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("values", "top1", "value"), 0.999, r"top-1 is 99\.90%, the predictions .* 80\.00%"),
        (("values", "top1", "n"), 10_000, r"of 10,000 images, run\.parquet of 200"),
        (("values", "per_class", 3, "top1"), 0.9, r"top-1 of class 3 is 90\.00%"),
        (("values", "top5"), {"value": 0.1, "n": 200}, r"top-5 is 10\.00%, the predictions"),
        (("values", "predictions_sha256"), "0" * 64, r"not the file of predictions that run\.json"),
    ],
)
def test_a_result_that_its_predictions_do_not_bear_out_is_refused(
    run: Path, where: tuple[Any, ...], value: Any, said: str
) -> None:
    changed(run, where, value, own_hash=False)
    with pytest.raises(UserError, match=said) as refused:
        read_folder(run.parent)
    assert run.name in str(refused.value)


def test_predictions_that_the_result_names_by_their_hash_are_taken(run: Path) -> None:
    stated = sha256_file(run.with_suffix(".parquet"))
    changed(run, ("values", "predictions_sha256"), stated, own_hash=False)
    assert len(read_folder(run.parent).measurements) == 1


def test_class_that_the_result_leaves_out_is_noticed(run: Path) -> None:
    kept = json.loads(run.read_text())["values"]["per_class"][:-1]
    changed(run, ("values", "per_class"), kept, own_hash=False)
    with pytest.raises(UserError, match=r"has 9 classes, run\.parquet 10"):
        read_folder(run.parent)


@pytest.mark.parametrize("damage", ["cut", "text", "other columns"])
def test_predictions_that_cannot_be_read_are_named(run: Path, damage: str) -> None:
    path = run.with_suffix(".parquet")
    if damage == "other columns":
        pq.write_table(pq.read_table(path).drop_columns(["top5"]), path)
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else b"predictions")
    with pytest.raises(UserError, match=r"run\.parquet is no file of predictions"):
        read_folder(run.parent)


def checked_by_name(folder: Path) -> dict[str, str]:
    (ranking,) = classifier_rankings(read_folder(folder).measurements)
    rows = training_table("fixture", [ranking], [], {}).rows
    return {str(row.cell("name").value): row.cell("checked").text for row in rows}


def test_board_says_which_results_were_checked(run: Path) -> None:
    for seed, name in ((0, "unseen"), (1, "made")):
        path = run.parent / f"{name}-{seed}.json"
        write_run(path, [a_source(name, 100)], np.arange(200) % 4 > 0, LABELS, NAMES, seed)
        path.with_suffix(".parquet").unlink()
    assert checked_by_name(run.parent) == {"made": "1 of 2 runs", "unseen": "not checked"}
    (run.parent / "made-1.json").unlink()
    assert checked_by_name(run.parent) == {"made": "yes", "unseen": "not checked"}


FOREIGN = {
    "build.json": '{"kind": "synthetic", "fingerprint": "x"}',
    "manifest.json": '{"name": "a web page"}',
    "package.json": '{"kind": ["list"]}',
    "list.json": "[1, 2]",
    "empty.json": "",
    "comments.json": "{// no JSON\n}",
    "latin.json": b'{"a": "\xe9"}',
    ".venv/kind.json": '{"kind": "scores"}',
}


def test_files_of_others_are_passed_over_counted_and_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in FOREIGN.items():
        path = run.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (run.parent / "folder.json").mkdir()
    (run.parent / "dangling.json").symlink_to("nowhere")
    found = read_folder(run.parent)
    assert len(found.measurements) == 1
    assert {path.name for path in found.passed_over} == set(FOREIGN) - {".venv/kind.json"}
    assemble_board(found, [])
    leaderboard(run.parent, json_=True)
    assert "passed over 7 JSON files that are no results: build.json" in capsys.readouterr().err


def test_half_a_result_is_refused_not_passed_over(run: Path) -> None:
    text = run.read_text()
    run.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match=r"run\.json is not a result file"):
        read_folder(run.parent)
