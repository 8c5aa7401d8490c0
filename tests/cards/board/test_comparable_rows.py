"""Rows of data that share a ranking may be compared: reports of other images or numbers do not."""

from cards.board.answer import ELSEWHERE
from cards.board.board import assemble_board
from cards.board.report_measurements import published_measurements, selection_measurements
from cards.measured.result_folder import read_folder
from tests.conftest import ROOT

RESULTS = ROOT / "results/fashion-mnist"


def test_distances_of_more_images_are_another_ranking() -> None:
    found = []
    for name in ("base", "more-steps"):
        folder = read_folder(RESULTS / "sampler-sweep" / name)
        (report,) = folder.selections
        found.append({row.ranking for row in selection_measurements(report, folder.folder)})
    assert [len(rankings) for rankings in found] == [1, 1]
    assert found[0] != found[1]


def test_each_paper_has_a_ranking_of_its_own() -> None:
    """Under its own protocol, as the page says."""
    studies: dict[str, set[str | None]] = {}
    for row in published_measurements():
        studies.setdefault(row.ranking, set()).add(row.study)
    assert max(map(len, studies.values())) == 1


def test_what_was_fine_tuned_was_measured_here() -> None:
    facets = assemble_board(read_folder(RESULTS / "finetuning"), [])
    assert {facet.key: facet.answer for facet in facets}["fashion-mnist"] == ELSEWHERE
