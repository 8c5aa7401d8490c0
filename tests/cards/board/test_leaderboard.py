"""The leaderboard: like with like, the paper's numbers as printed, one page that loads nothing."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from cards.board.answer import NO_BASELINE, NOTHING, PRINTED
from cards.board.board import assemble_board
from cards.board.published import FOLDER, TABLES, read_published
from cards.drawing.tables import MISSING
from cards.leaderboard import leaderboard
from cards.measured.against_real import ratio_to, verdict
from cards.measured.rankings import Score, classifier_rankings
from cards.measured.result_folder import ResultFolder, read_folder, read_results
from cards.pages.data_files import render_csv
from cards.pages.facet import Facet
from cards.pages.page import render_html, render_markdown, write_site
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import Result
from release.results.statistics import rank_interval
from tests.campaigns.killing import POINTS, hashes, killed_at, temporaries
from tests.cards.board.board_tables import board_tables
from tests.cards.made_up_results import (
    PROTOCOL,
    a_classifier_result,
    a_scores_result,
    a_source,
    labelled_fixture,
    write_all,
)
from tests.forked_commands import run


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Two generated sets with two runs each, real ones of 1,000 and 5,000 images, a mixed one."""
    good, bad = a_source("good", 1000), a_source("bad", 1000)
    real, more = a_source("real", 1000, "real"), a_source("real", 5000, "real")
    classes = [("shirt", 0.6), ("bag", 0.9)]
    trained = [
        ([good], 0.80, [("shirt", 0.75), ("bag", 0.88)]),
        ([bad], 0.60, [("shirt", 0.30), ("bag", 0.9)]),
        ([real], 0.85, classes),
        ([more], 0.90, classes),
        ([more, good], 0.92, classes),
    ]
    results = [
        a_classifier_result(train, top1 + 0.02 * seed, seed, per_class=per_class)
        for train, top1, per_class in trained
        for seed in (0, 1)
    ]
    results += [a_scores_result(good, 20.0), a_scores_result(bad, 40.0)]
    return write_all(tmp_path / "results", results)


def board_of(folder: Path) -> Any:
    return board_tables(assemble_board(read_folder(folder), []))


def table_of(board: Any, dataset: str, key: str) -> Any:
    facet = next(f for f in board if f["dataset"] == dataset)
    return next(t for t in facet["tables"] if t["key"] == key)


class TableReader(HTMLParser):
    """Rows of every table of data, as texts, by the id of the article around it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.article = ""
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self.article = dict(attrs).get("id") or ""
        elif tag == "tr":
            self.tables.setdefault(self.article, []).append([])
        elif tag == "td":
            self.in_cell = True
            self.tables[self.article][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.tables[self.article][-1][-1] += data


def tables_in(html: str) -> dict[str, list[list[str]]]:
    reader = TableReader()
    reader.feed(html)
    return {
        key: [[cell.strip() for cell in row] for row in rows if row]
        for key, rows in reader.tables.items()
    }


@pytest.fixture(scope="module")
def published_page() -> dict[str, list[list[str]]]:
    return tables_in(render_html(assemble_board(ResultFolder(), [])))


def shown(mean: str, std: str = "") -> str:
    return f"{mean} ± {std}" if std else mean or MISSING


def test_page_shows_every_published_generator_cell(
    published_page: dict[str, list[list[str]]],
) -> None:
    cas = {(r["training_data"], r["resolution"]): r for r in read_published("cas_resnet50")}
    expected = []
    for r in read_published("generators"):
        top = cas.pop((r["system"], r["resolution"]), {"top1": "", "top5": ""})
        scores = [shown(r["fid_train"]), shown(r["fid_val"]), shown(r["is_mean"], r["is_std"])]
        expected.append([r["system"], *scores, shown(top["top1"]), shown(top["top5"]), r["source"]])
    expected += [
        [r["training_data"], MISSING, MISSING, MISSING, r["top1"], r["top5"], r["source"]]
        for r in cas.values()
    ]
    assert len(expected) == 22
    assert sorted(published_page["published-systems"]) == sorted(expected)


def test_page_shows_every_published_classifier_and_scaling_cell(
    published_page: dict[str, list[list[str]]],
) -> None:
    classifiers = [list(row.values())[1:] for row in read_published("classifiers")]
    assert published_page["published-classifiers"] == classifiers
    scaling = [
        [r["train_set_m"]]
        + [shown(r[f"res{side}_top1"], r[f"res{side}_std"]) for side in (256, 1024)]
        for r in read_published("scaling_resnet50")
    ]
    assert published_page["published-scaling"] == scaling


def test_groups_put_each_published_system_at_its_resolution() -> None:
    table = table_of(
        board_tables(assemble_board(ResultFolder(), [])),
        "imagenet-1k",
        "published-systems",
    )
    found = {(g["title"].split(" ")[0], r["system"]) for g in table["groups"] for r in g["rows"]}
    printed = {(r["resolution"], r["system"]) for r in read_published("generators")}
    assert found == printed | {("1024", "Imagen (fine-tuned)"), ("Real", "Real")}


# Of the tables as they were typed from the paper and checked against it.
PUBLISHED_SHA256 = {
    "cas_resnet50": "51dc621361d581d95384382421c4a3e502a74962197f03014d935a78812fe5ab",
    "classifiers": "8c366e0c42619282f237fc3857b5ba206050106793a7220efbe10264a904ba36",
    "generators": "26557abe91d0db6b1bf14676c5c21fbbccaf05a870b2a7015b93c090eb609309",
    "scaling_resnet50": "82901de7d2fc284964e50d4cdf2e7efcc4c3ed6c49188ccbb37646ff5a2ef125",
}


def test_published_files_are_those_checked_against_the_paper() -> None:
    found = {p.stem: sha256_file(p) for p in FOLDER.glob("*.csv")}
    assert found == PUBLISHED_SHA256
    assert set(found) == set(TABLES)


def test_runs_are_averaged_and_ranked(measured: Path) -> None:
    (group,) = table_of(board_of(measured), "fixture", "fixture-classifiers")["groups"]
    rows = {(r["name"], r["images"]): r for r in group["rows"]}
    good = rows["good", 1000]
    assert good["top1"] == pytest.approx(81.0)
    assert good["top1_std"] == pytest.approx(np.std([80, 82], ddof=1))
    assert (good["seeds"], good["rank"], rows["bad", 1000]["rank"]) == (2, 1, 2)
    assert "rank" not in rows["real", 1000]
    assert "rank" not in rows["real (5,000) + good (1,000)", 6000]
    assert [r["top1"] for r in group["rows"]] == sorted(
        (r["top1"] for r in group["rows"]), reverse=True
    )


def test_baseline_has_as_many_images_or_the_same_real_ones(measured: Path) -> None:
    (group,) = table_of(board_of(measured), "fixture", "fixture-classifiers")["groups"]
    rows = {(r["name"], r["images"]): r for r in group["rows"]}
    assert rows["good", 1000]["real_top1"] == pytest.approx(86.0)  # 1,000 real images
    assert rows["good", 1000]["ratio"] == pytest.approx(81 / 86)
    assert rows["real (5,000) + good (1,000)", 6000]["real_top1"] == pytest.approx(91.0)
    assert "real_top1" not in rows["real", 1000]


def test_added_images_are_compared_with_the_same_real_images_or_none(tmp_path: Path) -> None:
    few, many, made = a_source("real", 50, "real"), a_source("real", 5000, "real"), a_source("g", 9)
    often = {**few, "weight": 2.0}
    sets = [([few], 0.5), ([many], 0.9), ([few, made], 0.6), ([often, made], 0.7)]
    sets.append(([a_source("other", 50, "real"), made], 0.8))
    results = [a_classifier_result(train, top1, 0) for train, top1 in sets]
    board = board_of(write_all(tmp_path / "results", results))
    rows = table_of(board, "fixture", "fixture-classifiers")["groups"][0]["rows"]
    found = {r["name"]: r.get("real_top1") for r in rows if "+" in r["name"]}
    assert found == {
        "real (50) + g (9)": pytest.approx(50.0),
        "real (50, visited 2 times) + g (9)": pytest.approx(50.0),
        "other (50) + g (9)": None,
    }


def test_ratio_to_real_has_its_interval_over_shared_seeds(tmp_path: Path) -> None:
    real, made, single = a_source("real", 9, "real"), a_source("made", 9), a_source("single", 9)
    runs = {0: (0.80, 0.90), 1: (0.70, 0.86), 2: (0.75, 0.95)}
    results = [a_classifier_result([single], 0.8, 0)]
    for seed, (ours, theirs) in runs.items():
        results.append(a_classifier_result([made], ours, seed))
        results.append(a_classifier_result([real], theirs, seed))
    board = board_of(write_all(tmp_path / "results", results))
    (group,) = table_of(board, "fixture", "fixture-classifiers")["groups"]
    rows = {r["name"]: r for r in group["rows"]}
    ratios = np.array([ours / theirs for ours, theirs in runs.values()])
    half = 4.302652729911275 * ratios.std(ddof=1) / 3**0.5  # Student's t, 2 degrees, 97.5%
    assert rows["made"]["ratio"] == pytest.approx(0.75 / (2.71 / 3))
    assert rows["made"]["ratio_low"] == pytest.approx(ratios.mean() - half)
    assert rows["made"]["ratio_high"] == pytest.approx(ratios.mean() + half)
    assert "ratio_low" not in rows["single"]  # one seed, of the three that real images have


@pytest.mark.parametrize(
    ("ours", "real", "shown"),
    [
        ({0: 0.9, 1: 0.8}, {0: 0.2, 1: 0.8}, False),  # two runs far apart
        ({0: 0.1, 1: 0.9}, {0: 0.80, 1: 0.81}, False),  # the ratio may be below 0
        ({0: 0.80, 1: 0.81}, {0: 0.85, 1: 0.86}, True),
        ({0: 0.8}, {0: 0.0}, False),
    ],
)
def test_ratio_whose_interval_says_nothing_is_not_shown(
    ours: dict[int, float], real: dict[int, float], shown: bool
) -> None:
    scores = [Score({str(s): v for s, v in runs.items()}, 10_000, None) for runs in (real, ours)]
    assert (ratio_to(*scores) is not None) == shown


@pytest.mark.parametrize(
    ("ours", "real", "expected"),
    [
        ({0: 0.81, 1: 0.91}, {0: 0.80, 1: 0.90}, "better"),  # by as much with each seed
        ({0: 0.80, 1: 0.90}, {0: 0.81, 1: 0.91}, "worse"),
        ({0: 0.81, 1: 0.85}, {0: 0.80, 1: 0.82}, "no clear difference"),
        ({2: 0.81, 3: 0.91}, {0: 0.80, 1: 0.90}, "no clear difference"),  # other seeds
        ({2: 0.899, 3: 0.9}, {0: 0.80, 1: 0.801}, "better"),
        ({0: 0.81, 1: 0.91, 2: 0.1}, {0: 0.80, 1: 0.90}, "better"),  # by the seeds that both have
        ({0: 0.9}, {0: 0.8}, "no clear difference"),  # one run that states no interval
    ],
)
def test_verdict_against_real_images(
    ours: dict[int, float], real: dict[int, float], expected: str
) -> None:
    scores = [Score({str(s): v for s, v in runs.items()}, 10_000, None) for runs in (real, ours)]
    assert verdict(*scores) == expected


def test_seeds_that_agree_by_rounding_give_no_verdict() -> None:
    real, ours = (Score({"0": low, "1": low + 0.1}, 50, None) for low in (0.80, 0.82))
    assert verdict(real, ours) == "no clear difference"


@pytest.mark.parametrize(("top1", "expected"), [(0.83, "better"), (0.81, "no clear difference")])
def test_single_runs_differ_where_their_intervals_lie_apart(top1: float, expected: str) -> None:
    real = Score({"0": 0.8}, 1000, (0.79, 0.81))
    assert verdict(real, Score({"0": top1}, 1000, (top1 - 0.01, top1 + 0.01))) == expected


def test_real_images_visited_more_often_are_no_baseline(tmp_path: Path) -> None:
    often = {**a_source("real", 1000, "real"), "weight": 3.0}
    sets = [([a_source("real", 1000, "real")], 0.85), ([often], 0.87)]
    sets.append(([a_source("good", 1000)], 0.80))
    results = [a_classifier_result(train, top1, 0) for train, top1 in sets]
    board = board_of(write_all(tmp_path / "results", results))
    rows = {
        r["name"]: r for r in table_of(board, "fixture", "fixture-classifiers")["groups"][0]["rows"]
    }
    assert rows["good"]["real_top1"] == pytest.approx(85.0)
    assert rows["real (visited 3 times)"]["top1"] == pytest.approx(87.0)


def test_scores_stand_beside_the_same_release_only(measured: Path) -> None:
    (group,) = table_of(board_of(measured), "fixture", "fixture-classifiers")["groups"]
    distances = {r["name"]: r.get("fd_train") for r in group["rows"]}
    mixed = "real (5,000) + good (1,000)"
    assert distances == {"good": 20.0, "bad": 40.0, "real": None, mixed: None}


def test_distances_to_validation_count_as_those_to_test_do(tmp_path: Path) -> None:
    """ImageNet has no other labelled images to hold out."""
    results = []
    for name, top1, fd in (("good", 0.8, 20.0), ("bad", 0.6, 40.0)):
        source = a_source(name, 1000)
        scored = a_scores_result(source, fd)
        values = {("fd_validation" if k == "fd_test" else k): v for k, v in scored.values.items()}
        results += [a_classifier_result([source], top1, 0), replace(scored, values=values)]
    (facet,) = assemble_board(read_folder(write_all(tmp_path / "results", results)), [])
    tables = {table.key: table for section in facet.sections for table in section.tables}
    for key in ("fixture-classifiers", "fixture-scores"):
        (column,) = [c for c in tables[key].columns if c.key == "fd_validation"]
        assert (column.label, column.better) == ("FD to validation", "lower")
    assert "CAS against FD to validation" in [v.title for s in facet.sections for v in s.views]


def _board_of_sets(folder: Path, pairs: Sequence[tuple[float, float]], **helped: str) -> Facet:
    """pairs: distance and CAS of each generated set. helped: what of others a classifier had."""
    results = []
    for number, (distance, top1) in enumerate(pairs):
        source = a_source(f"set{number}", 1000)
        trained = a_classifier_result([source], top1, 0)
        results.append(replace(trained, subject=trained.subject | helped))
        results.append(a_scores_result(source, distance))
    (facet,) = assemble_board(read_folder(write_all(folder, results)), [])
    return facet


def test_rank_correlation_of_distance_and_cas_has_its_interval(tmp_path: Path) -> None:
    pairs = [(10.0, 0.8), (20.0, 0.82), (30.0, 0.7), (40.0, 0.6), (50.0, 0.65), (60.0, 0.5)]
    rho = spearmanr(*zip(*pairs, strict=True)).statistic
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / (len(pairs) - 3))
    ends = [math.tanh(math.atanh(rho) + side * half) for side in (-1, 1)]
    assert rank_interval(rho, len(pairs)) == pytest.approx(ends, rel=1e-6)
    facet = _board_of_sets(tmp_path / "results", pairs)
    texts = [f"{number:+.2f}".replace("-", "\N{MINUS SIGN}") for number in (rho, *ends)]
    said = (
        f"Rank correlation of FD to train and CAS over 6 sets: Spearman {texts[0]}, "
        f"95% {texts[1]} to {texts[2]}"
    )
    assert any(said in note for table in facet.tables for note in table.footnotes)
    assert any(said in view.caption for view in facet.views)


def test_accuracy_that_a_teacher_helped_is_no_cas(tmp_path: Path) -> None:
    pairs = [(10.0, 0.8), (20.0, 0.7), (30.0, 0.6), (40.0, 0.5)]
    facet = _board_of_sets(tmp_path / "results", pairs, teacher_sha256="a" * 64)
    assert len(facet.tables) > 1
    assert not any("Rank correlation" in view.caption for view in facet.views)


def test_few_or_perfectly_ordered_sets_have_no_interval(tmp_path: Path) -> None:
    pairs = [(10.0, 0.8), (20.0, 0.7), (30.0, 0.6), (40.0, 0.5)]
    few = _board_of_sets(tmp_path / "few", pairs[:3])
    assert not any("Rank correlation" in view.caption for view in few.views)
    perfect = _board_of_sets(tmp_path / "perfect", pairs)
    assert any(
        "Spearman \N{MINUS SIGN}1.00; \N{MINUS SIGN}1 where" in view.caption
        for view in perfect.views
    )
    assert rank_interval(-1.0, 4) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": {**PROTOCOL, "epochs": 20}}, "epochs (here "),
        (
            {"reference": {"name": "other", "content_sha256": "x", "config": "32"}},
            "test set name (here ",
        ),
        (
            {"subject": {"train": [a_source("good", 1000)], "model": "vit", "recipe": "small"}},
            "model (here ",
        ),
    ],
)
def test_what_differs_is_not_ranked_together(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    first = a_classifier_result([a_source("good", 1000)], 0.8, 0)
    second = Result(**{**first.__dict__, "seeds": {"classifier": 1}, **change})
    board = board_of(write_all(tmp_path / "results", [first, second]))
    groups = table_of(board, "fixture", "fixture-classifiers")["groups"]
    assert [[r["rank"] for r in g["rows"]] for g in groups] == [[1], [1]]
    assert all(reason in g["note"] for g in groups)


def test_reading_many_results_shows_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [a_classifier_result([a_source("good", 1000)], 0.8, seed) for seed in (0, 1)]
    folder = write_all(tmp_path / "results", results)
    read_folder(folder, quiet=False)
    assert not capsys.readouterr().err  # few take no time
    monkeypatch.setattr("cards.measured.result_folder.MANY", 2)
    read_folder(folder, quiet=False)
    assert "reading: 2 of 2 results" in capsys.readouterr().err


def test_other_data_set_is_another_facet(tmp_path: Path) -> None:
    results = [
        a_classifier_result([a_source("good", 1000)], 0.8, 0, dataset=name)
        for name in ("one", "two")
    ]
    found = read_folder(write_all(tmp_path / "results", results))
    board = board_tables(assemble_board(found, [], published=True))
    assert [facet["dataset"] for facet in board] == ["one", "two", "imagenet-1k"]
    unasked = assemble_board(found, [])
    assert [facet.key for facet in unasked] == ["one", "two"]
    assert all(len(table_of(board, n, f"{n}-classifiers")["groups"]) == 1 for n in ("one", "two"))


def test_measured_imagenet_rows_share_no_table_with_published_ones(tmp_path: Path) -> None:
    result = a_classifier_result([a_source("dit", 1000)], 0.6, 0, dataset="imagenet-1k")
    board = board_of(write_all(tmp_path / "results", [result]))
    tables = next(f for f in board if f["dataset"] == "imagenet-1k")["tables"]
    assert [t["published"] for t in tables] == [False, True, True, True]


def test_distances_of_other_sample_sizes_stand_apart(tmp_path: Path) -> None:
    results = [a_scores_result(a_source("good", n), 20.0) for n in (1000, 2000)]
    board = board_of(write_all(tmp_path / "results", results))
    groups = table_of(board, "fixture", "fixture-scores")["groups"]
    assert len(groups) == 2
    assert "images (here 1000)" in groups[0]["note"]


def test_distances_to_other_statistics_stand_apart(tmp_path: Path) -> None:
    """The same value, but of another reference file: what compare-scores refuses."""
    results = [a_scores_result(a_source(name, 1000), 20.0) for name in ("good", "bad")]
    results[1].values["fd_test"]["reference_sha256"] = "e" * 64
    board = board_of(write_all(tmp_path / "results", results))
    groups = table_of(board, "fixture", "fixture-scores")["groups"]
    assert len(groups) == 2
    assert "how FD to test is measured (here " in groups[0]["note"]


def test_two_releases_of_one_name_are_told_apart(tmp_path: Path) -> None:
    twin = {**a_source("good", 1000), "content_sha256": "f00dcafe" + "0" * 56}
    results = [a_classifier_result([s], 0.8, 0) for s in (a_source("good", 1000), twin)]
    board = board_of(write_all(tmp_path / "results", results))
    (group,) = table_of(board, "fixture", "fixture-classifiers")["groups"]
    assert {r["name"] for r in group["rows"]} == {"good (good-con)", "good (f00dcafe)"}


def tamper(folder: Path, change: dict[str, Any]) -> Path:
    """As of before results had the hash of all they say."""
    path = next(iter(sorted(folder.glob("*.json"))))
    content = {**json.loads(path.read_text()), **change}
    del content["result_sha256"]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": {"epochs": 1}}, "protocol was changed"),
        ({"kind": "guess"}, "unknown kind of result 'guess'"),
        ({"values": {}}, "values.top1: Field required"),
        ({"values": {"top1": {"value": 86.1, "n": 10}}}, "values.top1.value"),
        ({"values": {"top1": {"value": float("nan"), "n": 10}}}, "values.top1.value"),
        ({"subject": {"train": [], "model": "m", "recipe": "r"}}, "subject.train"),
    ],
)
def test_broken_result_is_refused_by_name(
    measured: Path, change: dict[str, Any], message: str
) -> None:
    path = tamper(measured, change)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        read_folder(measured)
    assert str(path) in str(refused.value)


def test_one_run_in_two_files_is_refused(tmp_path: Path) -> None:
    result = a_classifier_result([a_source("good", 1000)], 0.8, 0)
    folder = write_all(tmp_path / "results", [result, result])
    with pytest.raises(UserError, match=r"1\.json repeats .*0\.json"):
        assemble_board(read_folder(folder), [])


@pytest.mark.parametrize(
    ("field", "setting"), [("start_sha256", "started from"), ("teacher_sha256", "taught by")]
)
def test_classifiers_that_had_others_to_begin_or_learn_from_are_ranked_apart(
    tmp_path: Path, field: str, setting: str
) -> None:
    """The same training set and seed, without another classifier and with either of two."""
    bare = a_classifier_result([a_source("good", 1000)], 0.8, 0)
    helped = [replace(bare, subject=bare.subject | {field: name * 64}) for name in ("a", "b")]
    folder = write_all(tmp_path / "results", [bare, *helped])
    rankings = classifier_rankings(read_results(folder))
    assert [len(ranking.rows) for ranking in rankings] == [1, 1, 1]
    assert [r.settings.get(setting) for r in rankings] == [None, "a" * 64, "b" * 64]
    assert assemble_board(read_folder(folder), [])


def test_other_files_are_left_alone(measured: Path) -> None:
    (measured / "images.parquet").write_bytes(b"images")
    (measured / "notes.md").write_text("notes")
    assert len(read_folder(measured).measurements) == 12


def test_command_refuses_tampered_result_with_one_line(measured: Path) -> None:
    path = tamper(measured, {"protocol": {"epochs": 1}})
    done = run(["leaderboard", measured])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {path}: the protocol was changed after the result was written\n"


def test_command_writes_the_site_and_one_json_document(measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    done = run(["leaderboard", measured, "--out", out, "--json"])
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    names = ["index.html", *(f"leaderboard.{end}" for end in ("md", "csv", "json")), "classes.csv"]
    assert [Path(f).name for f in document["files"]] == names
    assert json.loads((out / "leaderboard.json").read_text()) == document["board"]


def test_command_prints_tables_on_the_terminal(measured: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cards.leaderboard", str(measured), "--all", "--published"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PYTHONUTF8": "1"},
    )
    assert re.search(r"\b1 +good +81\.00 ± 1\.41", done.stdout)
    assert "239.18 ± 1.14" in done.stdout


def test_terminal_begins_with_the_answer_and_a_few_rows(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaderboard(measured)
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "On fixture the best set of generated images, good (1,000 images), gives resnet10t (small) "
        "81.00% top-1 (2 runs) on real test images; 1,000 real images give 86.00% top-1 (2 runs)"
        in shown
    )
    assert "good 81.00 ± 1.41" in shown
    assert "2 more rows in 2 tables: --all prints them" in shown
    assert "Inception" not in shown


def test_the_first_table_has_what_the_answer_names() -> None:
    """Also where an older ranking, of another import of the same test images, is worth less."""
    results = read_folder(Path(__file__).parents[3] / "results/fashion-mnist")
    facet = next(f for f in assemble_board(results, []) if f.title == "Fashion-MNIST")
    groups = facet.sections[0].tables[0].groups
    best = [next(r for r in g.rows if "rank" in r.cells).cells["name"].text for g in groups[:2]]
    assert best[0] != best[1]
    assert f"the best set of generated images, {best[0]} (" in facet.answer


def test_answer_without_generated_or_real_images_promises_nothing(tmp_path: Path) -> None:
    lone = a_classifier_result([a_source("good", 1000)], 0.8, 0)
    (facet,) = assemble_board(read_folder(write_all(tmp_path / "results", [lone])), [])
    assert facet.answer == NO_BASELINE
    real = a_classifier_result([a_source("real", 1000, kind="real")], 0.9, 0)
    (facet,) = assemble_board(read_folder(write_all(tmp_path / "other", [real])), [])
    assert facet.answer == NOTHING
    (published,) = assemble_board(ResultFolder(), [])
    assert published.answer == PRINTED


def test_what_classifiers_were_trained_for_comes_first(tmp_path: Path) -> None:
    score = a_scores_result(a_source("made", 9), 1.0, dataset="a-set-that-was-only-scored")
    real = a_classifier_result([a_source("real", 1000, kind="real")], 0.9, 0)
    facets = assemble_board(read_folder(write_all(tmp_path / "results", [score, real])), [])
    assert [facet.key for facet in facets] == ["fixture", "a-set-that-was-only-scored"]


def test_csv_and_markdown_have_the_same_numbers_as_the_page(measured: Path) -> None:
    facets = assemble_board(read_folder(measured), [])
    rows = list(csv.DictReader(io.StringIO(render_csv(facets))))
    good = {(r["metric"], r["split"]): r for r in rows if r["system"] == "good"}
    assert float(good["top1", "test"]["value"]) == pytest.approx(0.81)
    assert float(good["fd", "train"]["low"]) == 19.0
    (shown_row,) = [
        r for r in tables_in(render_html(facets))["fixture-classifiers"] if r[1] == "good"
    ]
    assert "| " + " | ".join(shown_row) + " |" in render_markdown(facets)


def test_page_loads_nothing_and_is_the_same_each_time(measured: Path, tmp_path: Path) -> None:
    facets = assemble_board(read_folder(measured), [])
    write_site(facets, tmp_path / "a")
    write_site(facets, tmp_path / "b")
    page = (tmp_path / "a" / "index.html").read_text()
    assert page == (tmp_path / "b" / "index.html").read_text()
    markup = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*["']""", markup)
    assert '<link rel="stylesheet"' not in markup
    assert not re.search(r"@import|url\(", markup)
    assert not re.search(r"<script[^>]+src=", page)


def test_page_of_1000_classes_and_30_rows_is_under_3_mb(tmp_path: Path) -> None:
    folder = labelled_fixture(tmp_path / "results", classes=1000, rows=30)
    page = render_html(assemble_board(read_folder(folder), []))
    assert len(page.encode()) < 3_000_000
    data = json.loads(re.search(r'id="board">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    views = data["fixture"]["classViews"]["fixture-training"]
    assert [len(view["rows"]) for view in views] == [1000] * 29


def test_text_from_results_cannot_become_markup(tmp_path: Path) -> None:
    source = a_source("<script>alert(1)</script>", 1000)
    per_class = [("</script><b>", 0.5)]
    results = [
        a_classifier_result([source], 0.8, 0, per_class=per_class),
        a_classifier_result([a_source("real", 1000, "real")], 0.8, 0, per_class=per_class),
    ]
    facets = assemble_board(read_folder(write_all(tmp_path / "results", results)), [])
    page = render_html(facets)
    assert "<script>alert" not in page
    assert "</script><b>" not in page


@pytest.mark.parametrize("point", POINTS)
def test_a_leaderboard_that_is_killed_leaves_whole_files(tmp_path: Path, point: str) -> None:
    results = write_all(tmp_path / "results", [a_classifier_result([a_source("a", 9)], 0.8, 0)])
    out = tmp_path / "site"
    leaderboard(results, out)
    old = hashes(out)
    a_classifier_result([a_source("b", 9)], 0.9, 0).write(results / "b.json")
    number = 1
    while killed_at(number, point, lambda: leaderboard(results, out)):
        found = hashes(out)
        assert set(found) == set(old)
        leaderboard(results, out)
        assert not temporaries(out)
        new = hashes(out)
        assert all(digest in (old[name], new[name]) for name, digest in found.items())
        (results / "b.json").rename(tmp_path / "b.json")
        leaderboard(results, out)
        assert hashes(out) == old
        (tmp_path / "b.json").rename(results / "b.json")
        number += 1
    assert number == 6
