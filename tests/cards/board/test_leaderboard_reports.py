"""Studies, sampler sweeps and fine-tunings on the leaderboard; how releases were made."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cards.board.board import assemble_board
from cards.board.published import read_published
from cards.board.selection import selection_views
from cards.board.studies import arms_table, gain_views, published_classifier
from cards.drawing.charts import CONTROL
from cards.measured.result_folder import read_folder
from cards.pages.data_files import render_classes_csv
from cards.pages.facet import Facet
from cards.pages.page import render_html
from classifiers.recipes.recipe import recipe_names
from classifiers.study.report_model import StudyReport
from metrics.selection.report_model import SelectionReport
from release.errors import UserError
from release.layout.manifest import Manifest, ShardRecord
from release.results.result import Result
from tests.cards.board.board_tables import board_tables
from tests.cards.board.made_up_reports import FINDING, a_finetuning, a_study, a_sweep
from tests.cards.made_up_results import (
    a_classifier_result,
    a_scores_result,
    a_source,
    labelled_fixture,
    write_all,
)


def facet_of(folder: Path, dataset: str = "fixture") -> Facet:
    return next(f for f in assemble_board(read_folder(folder), []) if f.key == dataset)


def table_of(facet: Facet, ending: str) -> Any:
    tables = board_tables([facet])[0]["tables"]
    return next(table for table in tables if table["key"].endswith(ending))


def values_in(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of a chart: of the layer with most of them."""
    sources = [spec, *spec.get("layer", [])]
    found: list[list[dict[str, Any]]] = [s["data"]["values"] for s in sources if "data" in s]
    return max(found, key=len)


def the_study(folder: Path) -> StudyReport:
    (study,) = read_folder(folder).studies
    return study


def the_sweep(folder: Path) -> SelectionReport:
    (sweep,) = read_folder(folder).selections
    return sweep


def test_arms_of_a_study_stand_with_their_differences(tmp_path: Path) -> None:
    a_study(tmp_path)
    table = table_of(facet_of(tmp_path), "-arms")
    assert len(table["groups"]) == 4  # two classifiers, two sizes
    rows = table["groups"][0]["rows"]
    assert [row["top1"] for row in rows] == sorted((row["top1"] for row in rows), reverse=True)
    named = {row["arm"]: row for row in rows}
    mixed = named["real + 3 \N{MULTIPLICATION SIGN} set-a, equal updates"]
    assert mixed["difference"] == pytest.approx(-0.5)
    assert (mixed["difference_low"], mixed["difference_high"]) == pytest.approx((-0.9, -0.1))
    assert (mixed["over_images_low"], mixed["over_images_high"]) == pytest.approx((-1.1, 0.1))
    assert "difference" not in named["real"]
    assert named["real, visited 4 times"]["images"] == 4000
    assert any(FINDING in note and ": reproduced (" in note for note in table["footnotes"])


def test_what_a_table_takes_for_known_is_explained_below_it(tmp_path: Path) -> None:
    labelled_fixture(tmp_path / "results", classes=3, rows=4)
    a_study(tmp_path / "results/study")
    tables = facet_of(tmp_path / "results").tables
    told = [t for t in tables if any(row.cell("regime").value for row in t.rows)]
    assert len(told) > 1
    assert all(sum(n.startswith("Regime A: ") for n in table.footnotes) == 1 for table in told)
    (arms,) = (table for table in tables if table.key.endswith("-arms"))
    first = next(i for i, n in enumerate(arms.footnotes) if ", finding 4: " in n)
    assert any("arXiv 2304.08466" in note for note in arms.footnotes[:first])


def test_a_study_without_generated_images_explains_neither_regime_nor_paper(
    tmp_path: Path,
) -> None:
    a_study(tmp_path)
    study = the_study(tmp_path)
    rows = tuple(row for row in study.rows if row.generated is None)
    alone = study.model_copy(update={"rows": rows, "findings": (), "comparisons": ()})
    assert len(arms_table(alone, "alone").footnotes) == 2


def test_classifiers_of_an_imagenet_study_stand_beside_the_paper(tmp_path: Path) -> None:
    a_study(tmp_path, dataset="imagenet-1k")
    (group,) = table_of(facet_of(tmp_path, "imagenet-1k"), "-models")["groups"]
    rows = {(row["model"], row["real_images"]): row for row in group["rows"]}
    ours = rows["imagenet-resnet50", "all"]
    assert (ours["real_top1"], ours["generated_top1"]) == pytest.approx((88.0, 82.0))
    assert (ours["both_top1"], ours["difference"]) == pytest.approx((90.0, 2.0))
    assert (ours["paper_real"], ours["paper_both"], ours["paper_delta"]) == (76.39, 78.17, 1.78)
    assert "paper_real" not in rows["made-up-model", "all"]


def test_no_other_data_set_is_put_beside_the_papers_classifiers(tmp_path: Path) -> None:
    a_study(tmp_path)
    table = table_of(facet_of(tmp_path), "-models")
    assert not [key for key in table["columns"] if key.startswith("paper")]


def test_every_classifier_of_the_paper_has_its_recipe() -> None:
    recipes = [name for name in recipe_names() if name.startswith("imagenet-")]
    found = [row for name in recipes if (row := published_classifier(name))]
    names = {(row["timm_name"], row["input_size"]) for row in found}
    assert names == {(r["timm_name"], r["input_size"]) for r in read_published("classifiers")}
    assert len(names) == 12


def test_scaling_curve_starts_at_real_images_and_stands_beside_the_papers(tmp_path: Path) -> None:
    a_study(tmp_path, models=("made-up-model",))
    views = gain_views(the_study(tmp_path), "key")
    assert [view.published for view in views] == [False, True, False]
    points = values_in(views[0].spec)
    curve = [
        (p["times"], round(p["gain"], 6))
        for p in points
        if p["series"].endswith("set-a") and p["budget"] == "equal epochs"
    ]
    assert curve == [(0, 0.0), (1.0, 2.0), (3.0, 1.0), (9.0, -1.0)]
    assert {p["series"] for p in points if p["times"] == 3} >= {CONTROL}
    paper = {(p["series"], p["times"]): p["gain"] for p in values_in(views[1].spec)}
    assert len(paper) == 20
    assert paper["generated at 1024 px", 1] == pytest.approx(78.12 - 76.39)
    assert paper["generated at 256 px", 9] == pytest.approx(75.04 - 76.39)


def test_classes_of_a_study_keep_its_verdicts(tmp_path: Path) -> None:
    a_study(tmp_path, classes=20)
    facet = facet_of(tmp_path)
    first = facet.class_views[0]
    assert "McNemar" in first.rule
    assert [c.verdict for c in first.changes] == ["harmed", *[""] * 18, "helped"]
    assert render_classes_csv([facet]).count("\n") == 1 + 20 * len(facet.class_views)
    packed = json.loads(
        re.search(r'id="board">(.*?)</script>', render_html([facet]), re.S)[1]  # type: ignore[index]
    )["fixture"]
    (views,) = packed["classViews"].values()
    assert len(views) == len(facet.class_views) == 4 * 6
    assert {len(view["rows"]) for view in views} == {len(packed["classNames"])} == {20}


def test_classes_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    path = a_study(tmp_path, classes=20)
    path.write_text(path.read_text().replace('"made-up class 1"', '"made-up class 0"'))
    page = render_html([facet_of(tmp_path)])
    data = json.loads(re.search(r'id="board">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert data["fixture"]["classNames"].count("made-up class 0") == 2
    (views,) = data["fixture"]["classViews"].values()
    assert all(None not in view["rows"] and len(view["rows"]) == 20 for view in views)


def test_runs_of_a_study_are_not_counted_twice(tmp_path: Path) -> None:
    result = a_classifier_result([a_source("set-a", 1000)], 0.8, 0)
    write_all(tmp_path, [result])
    write_all(tmp_path / "study" / "runs" / "model", [result])
    with pytest.raises(UserError, match="repeats"):
        assemble_board(read_folder(tmp_path), [])
    a_study(tmp_path / "study")
    assert len(read_folder(tmp_path).measurements) == 1
    assemble_board(read_folder(tmp_path), [])


def test_points_of_a_sweep_stand_apart_from_releases(tmp_path: Path) -> None:
    a_sweep(tmp_path / "sweep")
    write_all(tmp_path / "sweep" / "results" / "point", [a_scores_result(a_source("p", 10), 20.0)])
    write_all(tmp_path / "other", [a_scores_result(a_source("good", 1000), 30.0)])
    found = read_folder(tmp_path)
    assert [r.sources[0].name for r in found.measurements] == ["good"]
    table = table_of(facet_of(tmp_path), "-points")
    assert list(table["columns"])[:3] == ["guidance", "gamma", "steps"]
    rows = table["groups"][0]["rows"]
    assert len(rows) == 24
    assert [row["fd"] for row in rows] == sorted(row["fd"] for row in rows)
    assert [row["guidance"] for row in rows if row.get("chosen")] == [1.25]
    assert sum("cas" in row for row in rows) == 4


def test_sweep_is_drawn_a_panel_a_combination(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    *curves, cas = selection_views(the_sweep(tmp_path), "key")
    assert [view.title for view in curves] == [
        "FD along guidance w: steps 16",
        "FD along guidance w: steps 8",
    ]
    points = values_in(curves[0].spec)
    assert {p["line"] for p in points} == {"0", "0.3", "1"}
    assert [p["name"] for p in points if p["chosen"]] == ["ddpm-w1.25-g0-s16-a0"]
    assert len(values_in(cas.spec)) == 4


def test_selection_without_its_dataset_takes_that_of_its_points(tmp_path: Path) -> None:
    path = a_sweep(tmp_path)
    document = json.loads(path.read_text())
    del document["dataset"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="does not say its dataset"):
        read_folder(tmp_path)
    write_all(tmp_path / "results" / "p", [a_scores_result(a_source("p", 10), 2.0, dataset="d")])
    assert the_sweep(tmp_path).dataset == "d"


def test_finetuning_shows_generators_differences_and_the_grid(tmp_path: Path) -> None:
    path = a_finetuning(tmp_path)
    write_all(tmp_path / "results", [a_scores_result(a_source("scratch-seed0", 10), 2.0)])
    assert not read_folder(tmp_path).measurements  # the report stands for it
    facet = facet_of(tmp_path)
    generators, differences = table_of(facet, "-generators")["groups"]
    assert [row["generator"] for row in generators["rows"]] == ["stand-in", "fine-tuned"]
    assert differences["rows"][0]["fd_train"] == -400
    assert differences["rows"][0]["cas_top1"] == pytest.approx(30.0)
    assert 'alt="Images before and after' in render_html([facet])
    path.with_suffix(".png").unlink()
    with pytest.raises(UserError, match=r"finetuning\.png is missing"):
        facet_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "rows: Tuple should have at least 1 item"),
        ({"test": {"dataset": "d", "name": "real", "split": "test"}}, "test.n: Field required"),
    ],
)
def test_broken_report_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = a_study(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        read_folder(tmp_path)
    assert str(path) in str(refused.value)


SAMPLER = {"method": "ddim", "steps": 50, "guidance": 1.5, "gamma": 0.0, "eta": 0.0}
MANIFEST = Manifest(
    name="good",
    kind="synthetic",
    dataset="fixture",
    regime="B",
    license="mit",
    classes=(),
    origin={
        "recipe": {
            "stage": [
                {"resolution": 16, "cost": {"seconds": 0.5, "hardware": "one A100"}},
                {"resolution": 32, "cost": {"seconds": 0.25, "hardware": "one A100"}},
            ]
        },
        "stages": [
            {"resolution": 16, "sampler": SAMPLER},
            {"resolution": 32, "sampler": {**SAMPLER, "guidance": 1.0}},
        ],
    },
    shards=(
        ShardRecord("16/train-0.parquet", 10, 1, "a" * 64, "f" * 64, {}),
        ShardRecord("32/train-0.parquet", 10, 1, "b" * 64, "f" * 64, {}),
    ),
)


def results_of_release(folder: Path, manifest: Manifest) -> Path:
    source = {**a_source("good", 10), "content_sha256": manifest.content_sha256}
    results: list[Result] = [a_classifier_result([source], 0.8, 0), a_scores_result(source, 20.0)]
    return write_all(folder, results)


def test_sampler_and_cost_come_from_a_copy_of_the_manifest(tmp_path: Path) -> None:
    results_of_release(tmp_path, MANIFEST)
    assert "sampler" not in table_of(facet_of(tmp_path), "-classifiers")["columns"]
    (tmp_path / "good").mkdir()
    MANIFEST.write(tmp_path / "good")
    for ending in ("-classifiers", "-scores"):
        (row,) = table_of(facet_of(tmp_path), ending)["groups"][0]["rows"]
        assert row["sampler"] == "16 px: ddim, 50 steps, guidance 1.5; 32 px: ddim, 50 steps"
        assert row["seconds"] == pytest.approx(0.75)


@pytest.mark.parametrize("cost", [{}, {"cost": {"memory_gib": 8.0, "source": "counted"}}])
def test_cost_that_a_stage_does_not_tell_is_left_out(
    tmp_path: Path, cost: dict[str, object]
) -> None:
    first = {"resolution": 16, "cost": {"seconds": 0.5, "hardware": "x"}}
    stages = [first, {"resolution": 32, **cost}]
    manifest = replace(MANIFEST, origin={**MANIFEST.origin, "recipe": {"stage": stages}})
    manifest.write(results_of_release(tmp_path, manifest))
    columns = table_of(facet_of(tmp_path), "-scores")["columns"]
    assert "sampler" in columns
    assert "seconds" not in columns


def test_contents_name_no_two_sections_alike(tmp_path: Path) -> None:
    for name in ("one", "two"):
        a_sweep(tmp_path / name)
    titles = [section.title for section in facet_of(tmp_path).sections]
    assert len(titles) == len(set(titles)) == 2
    assert titles[0].endswith("(1 of 2)")
