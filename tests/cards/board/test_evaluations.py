"""Open kinds of result: leaderboard and card show them with direction, protocol and interval."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cards.board.board import assemble_board
from cards.card.body import card_body
from cards.card.release_results import results_about
from cards.drawing.sample_grid import read_groups
from cards.measured.result_folder import read_folder
from cards.pages.facet import Facet
from cards.pages.page import write_site
from cards.render_card import picture_names
from metrics.evaluation import Evaluation
from metrics.evaluations import EVALUATIONS
from metrics.scoring.metric import ValueName
from release.errors import UserError
from release.layout.manifest import read_manifest
from release.results.result import Result
from tests.cards.made_up_results import a_source
from tests.cards.tiny_card import DAY, a_result

PROTOCOL = {"protocol": "made-up-1"}
COUNTING = Evaluation(
    "counting", "How well it counts", "Made up.", {"errors": ValueName("Errors", better="lower")}
)


def an_evaluation(
    kind: str,
    system: str,
    values: dict[str, float],
    seed: int = 0,
    *,
    trained_on: str | None = None,
) -> Result:
    sources = [a_source(trained_on, 100)] if trained_on else []
    return Result(
        kind=kind,
        dataset="digits",
        subject={"system": system, "sources": sources, "network": {"extractor": "classifier:x"}},
        protocol={"features": "frozen"},
        reference={"name": "digits-real", "config": "32", "split": "test", "content_sha256": "d"},
        values={
            key: {"value": v, "n": 360, "interval": [v - 0.1, v + 0.1], "settings": PROTOCOL}
            for key, v in values.items()
        },
        seeds={"classifier": seed} if trained_on else {},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, probe in enumerate((0.5, 0.6)):
        result = an_evaluation(
            "representation",
            "small on 100 of made",
            {"linear_probe": probe, "knn": 0.4},
            seed,
            trained_on="made",
        )
        result.write(tmp_path / f"made-{seed}.json")
    an_evaluation("representation", "resnet18", {"linear_probe": 0.8}).write(tmp_path / "timm.json")
    return tmp_path


def facet_of(folder: Path) -> Facet:
    return next(f for f in assemble_board(read_folder(folder), []) if f.key == "digits")


def test_runs_of_one_system_are_a_row_with_their_spread(folder: Path) -> None:
    (table,) = facet_of(folder).tables
    assert table.title == EVALUATIONS["representation"].title
    assert [column.heading for column in table.columns[2:]] == ["Linear probe, % ↑", "k-NN, % ↑"]
    (group,) = table.groups
    best, made = group.rows
    assert best.cell("name").text == "resnet18"
    assert best.cell("linear_probe").text == "80.00 [70.00, 90.00]"
    assert made.cell("arm").text == "generated"
    assert made.cell("linear_probe").text == "55.00 ± 7.07"
    assert "Protocol made-up-1: Linear probe, k-NN." in table.footnotes


def test_measurements_have_direction_interval_and_protocol(folder: Path, tmp_path: Path) -> None:
    rows = {(m.system, m.metric): m for m in facet_of(folder).measurements}
    alone, made = rows["resnet18", "linear_probe"], rows["small on 100 of made", "linear_probe"]
    assert (alone.direction, alone.unit, alone.n) == ("higher", "fraction", 360)
    assert (alone.low, alone.high, alone.interval_over) == (
        pytest.approx(0.7),
        pytest.approx(0.9),
        "images",
    )
    assert (alone.content_sha256, alone.images_are) == (None, None)
    assert (made.content_sha256, made.images_are, made.seeds) == ("made-content", "generated", 2)
    assert made.interval_over == "seeds"
    assert made.protocol_sha256 == alone.protocol_sha256
    write_site(assemble_board(read_folder(folder), []), tmp_path / "site")
    document = json.loads((tmp_path / "site/leaderboard.json").read_text())
    assert len(document["measurements"]) == len(rows) == 3


def test_a_new_kind_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    an_evaluation("counting", "small", {"errors": 3.5}).write(folder / "counting.json")
    with pytest.raises(UserError, match="unknown kind of result 'counting'; known: classifier"):
        read_folder(folder)
    monkeypatch.setitem(EVALUATIONS, "counting", COUNTING)
    table = facet_of(folder).tables[-1]
    assert table.columns[-1].heading == "Errors ↓"
    assert table.rows[0].cell("errors").text == "3.500 [3.400, 3.600]"


def test_settings_part_rankings(folder: Path) -> None:
    other = an_evaluation("representation", "other", {"linear_probe": 0.9})
    other.values["linear_probe"]["settings"] = {"protocol": "made-up-2"}
    other.write(folder / "other.json")
    groups = facet_of(folder).tables[0].groups
    assert sorted(len(group.rows) for group in groups) == [1, 2]
    assert "how linear probe is measured" in groups[0].note


def test_a_card_tells_of_networks_that_learned_from_the_release(
    release: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    result = an_evaluation("representation", "small on 18 of garments", {"knn": 0.4})
    source = a_result(release, 0.5).subject["train"]
    result = replace(result, subject=result.subject | {"sources": source})
    result.write(results / "transfer.json")
    an_evaluation("representation", "resnet18", {"knn": 0.7}).write(results / "timm.json")
    with pytest.raises(UserError, match="no accuracies of classifiers about garments"):
        results_about(read_manifest(release), results)
    pictures = picture_names(read_groups(release))
    about = (read_manifest(release), pictures, results, "./garments", DAY)
    (row,) = [line for line in card_body(*about, allow_missing=True).splitlines() if "k-NN" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:7] == [
        *("small on 18 of garments", "digits", "k-NN, %", "higher", "40.00 [30.00, 50.00]", "360")
    ]
    assert cells[7].strip("`") in card_body(*about, allow_missing=True).split("same name:")[1]
