"""leaderboard.csv, classes.csv and leaderboard.json: one long form, by a schema with a version."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cards.board.board import assemble_board
from cards.board.published import read_published
from cards.measured.class_changes import ClassChange
from cards.measured.result_folder import ResultFolder, read_folder
from cards.pages.board_data import SCHEMA_VERSION, BoardData, ClassComparison, Measurement
from cards.pages.data_files import render_classes_csv, render_csv, render_json
from cards.pages.facet import ClassView, Facet
from cards.pages.page import write_site
from tests.cards.board.made_up_reports import a_finetuning, a_study, a_sweep
from tests.cards.made_up_results import a_classifier_result, a_scores_result, a_source, write_run

DOCS = Path(__file__).parents[3] / "docs"
LABELS = np.repeat(np.arange(10), 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of file that the leaderboard reads."""
    folder = tmp_path_factory.mktemp("data") / "results"
    for name, kind, share in (("made", "synthetic", 0.6), ("real", "real", 0.8)):
        random = np.random.default_rng(len(name))
        for seed in range(3):
            correct, path = random.random(200) < share, folder / "runs" / f"{name}-{seed}.json"
            source = a_source(name, 100, kind)
            write_run(path, [source], correct, LABELS, [f"c{i}" for i in range(10)], seed)
    a_classifier_result([a_source("lone", 100)], 0.5, 0).write(folder / "lone.json")
    a_scores_result(a_source("made", 100), 20.0).write(folder / "scores.json")
    a_study(folder / "study")
    a_sweep(folder / "sweep")
    a_finetuning(folder / "finetuning")
    return folder


@pytest.fixture(scope="module")
def facets(folder: Path) -> tuple[Facet, ...]:
    return assemble_board(read_folder(folder), [], published=True)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_and_json_hold_the_same_measurements(facets: tuple[Facet, ...]) -> None:
    document = BoardData.model_validate_json(render_json(facets))
    rows = rows_of(render_csv(facets))
    assert len(rows) == len(document.measurements) > 200
    assert list(rows[0]) == ["schema_version", *Measurement.model_fields]
    assert {row["schema_version"] for row in rows} == {str(SCHEMA_VERSION)}
    for row, measurement in zip(rows, document.measurements, strict=True):
        assert float(row["value"]) == measurement.value
        assert row["system"].removeprefix("'") == measurement.system
    classes = rows_of(render_classes_csv(facets))
    assert len(classes) == len(document.classes)
    assert list(classes[0]) == ["schema_version", *ClassComparison.model_fields]


def test_columns_do_not_depend_on_which_results_exist(facets: tuple[Facet, ...]) -> None:
    published = render_csv(assemble_board(ResultFolder(), []))
    assert published.splitlines()[0] == render_csv(facets).splitlines()[0]


def test_every_share_is_a_fraction(facets: tuple[Facet, ...]) -> None:
    for facet in facets:
        for row in facet.measurements:
            ends = [end for end in (row.value, row.low, row.high, row.std) if end is not None]
            if row.unit == "fraction":
                assert all(abs(end) <= 1.2 for end in ends), row  # an interval over seeds may leave
            assert (row.low is None) == (row.confidence is None) == (row.interval_over is None)
    accuracies = [r for f in facets for r in f.measurements if r.metric in ("top1", "top5")]
    assert {row.unit for row in accuracies} == {"fraction"}
    assert {row.origin for row in accuracies} == {
        *("result", "study", "selection", "finetuning", "published")
    }


def test_what_is_published_stands_there_as_printed() -> None:
    (facet,) = assemble_board(ResultFolder(), [])
    found = {(r.ranking, r.system, r.metric, r.split): r for r in facet.measurements}
    assert len(found) == len(facet.measurements)
    imagen = next(r for r in facet.measurements if r.system == "Imagen (fine-tuned)")
    printed = next(r for r in read_published("generators") if r["system"] == imagen.system)
    assert (imagen.metric, imagen.value) == ("fid", float(printed["fid_train"]))
    both = [r for r in facet.measurements if r.model == "resnet50" and r.config == "224"]
    assert {r.images_are: r.value for r in both}["real + generated"] == pytest.approx(0.7817)


def test_a_study_is_named_and_images_mean_one_thing(facets: tuple[Facet, ...]) -> None:
    facet = next(f for f in facets if f.key == "fixture")
    arms = [r for r in facet.measurements if r.origin == "study"]
    assert {r.study for r in arms} == {"made-up"}
    assert {(r.images, r.n) for r in arms if "real, visited 4 times" in r.system} == {
        (4000, 10_000)
    }
    gains = [r for r in arms if r.metric == "top1_difference"]
    assert {r.interval_over for r in gains} == {"seeds", "images"}
    made = [r for r in facet.measurements if (r.system, r.origin) == ("made", "result")]
    assert {(r.metric, r.images, r.n) for r in made} >= {("top1", 100, 200), ("fd", 100, 1000)}


def test_runs_are_counted_and_checked(facets: tuple[Facet, ...]) -> None:
    facet = next(f for f in facets if f.key == "fixture")
    found = {
        r.system: (r.seeds, r.interval_over, r.checked, len(r.result_files))
        for r in facet.measurements
        if (r.metric, r.origin) == ("top1", "result")
    }
    assert found == {
        "made": (3, "seeds", True, 3),
        "real": (3, "seeds", True, 3),
        "lone": (1, "images", False, 1),
    }


def test_measurements_share_a_ranking_only_with_their_like(facets: tuple[Facet, ...]) -> None:
    document = json.loads(render_json(facets))
    known = {r["ranking"]: r["settings"] for r in document["rankings"]}
    results = [r for r in document["measurements"] if r["origin"] == "result"]
    assert {r["ranking"] for r in results} == set(known)
    shared: dict[str, set[Any]] = {}
    for row in document["measurements"]:
        kind = (row["origin"], row["dataset"], row["protocol_sha256"])
        shared.setdefault(row["ranking"], set()).add(kind)
    assert all(len(kinds) == 1 for kinds in shared.values())


def test_no_path_of_this_machine_is_published(folder: Path, tmp_path: Path) -> None:
    write_site(assemble_board(read_folder(folder), []), tmp_path / "site")
    for path in (tmp_path / "site").iterdir():
        assert str(folder) not in path.read_text()
    rows = rows_of((tmp_path / "site" / "leaderboard.csv").read_text())
    files = {file for row in rows for file in row["result_files"].split(";") if file}
    assert {"lone.json", "runs/made-0.json", "study/report.json"} <= files


def test_verdicts_say_when_nothing_was_tested(facets: tuple[Facet, ...]) -> None:
    rows = rows_of(render_classes_csv(facets))
    by_set: dict[str, set[str]] = {}
    for row in rows:
        by_set.setdefault(row["training_set"].split(",")[0], set()).add(row["verdict"])
    assert by_set["made"] <= {"harmed", "helped", "not significant"}
    assert {"harmed", "helped", "not significant"} in by_set.values()  # of the study
    assert min(float(row["baseline_top1"]) for row in rows) >= 0
    assert max(float(row["top1"]) for row in rows) <= 1


def test_schema_and_document_say_what_the_code_does() -> None:
    schema = json.loads((DOCS / "leaderboard.schema.json").read_text())
    assert schema == json.loads(json.dumps(BoardData.model_json_schema()))
    text = (DOCS / "leaderboard-data.md").read_text()
    for model in (Measurement, ClassComparison):
        for name, field in model.model_fields.items():
            assert f"| `{name}` | {field.description} |" in text


def test_unknown_numbers_and_fields_are_refused() -> None:
    row = {"dataset": "d", "origin": "result", "ranking": "r", "system": "s", "metric": "fd"}
    row |= {"value": 1.0, "unit": "number"}
    Measurement.model_validate(row)
    for wrong in ({"value": float("nan")}, {"unit": "percent"}, {"extra": 1}, {"confidence": 95}):
        with pytest.raises(ValueError, match="validation error"):
            Measurement.model_validate(row | wrong)


@pytest.mark.parametrize(("tested", "verdict"), [(True, 0), (False, 3)])
def test_the_page_does_not_call_untested_classes_not_significant(
    tested: bool, verdict: int
) -> None:
    change = ClassChange("c0", "cat", 50, 0.5, 0.6, -0.1, 0.3, "")
    view = ClassView("made", "real", "a rule", (change,), tested=tested)
    assert view.packed({"c0": 0})["rows"] == [[500, 600, -100, 300, verdict]]
