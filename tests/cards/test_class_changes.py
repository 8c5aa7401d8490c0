"""Classes helped and harmed on the leaderboard: one rule, the study's, that needs seeds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from cards.board.board import assemble_board
from cards.measured.class_changes import (
    NO_PREDICTIONS,
    OTHER_IDS,
    TOO_FEW,
    ClassChange,
    class_changes,
)
from cards.measured.result_folder import read_folder
from cards.pages.facet import ClassView
from classifiers.training.class_verdicts import class_rows
from classifiers.training.outcomes import read_outcomes
from release.results.statistics import newcombe, share, wilson
from tests.cards.made_up_results import a_classifier_result, a_source, write_all, write_run

ROOT = Path(__file__).parents[2]
REAL, MADE = a_source("real", 1000, "real"), a_source("made", 1000)


def write_arm(
    folder: Path, arm: dict[str, object], rates: np.ndarray, n: int, seeds: Sequence[int], rng: int
) -> None:
    """Runs on K classes of n images each; rates [S,K] or [K]: how often each class is right."""
    classes = rates.shape[-1]
    labels = np.repeat(np.arange(classes), n)
    random = np.random.default_rng(rng)
    for seed, row in zip(seeds, np.broadcast_to(rates, (len(seeds), classes)), strict=True):
        correct = random.random(len(labels)) < row[labels]
        names = [f"class {i}" for i in range(classes)]
        write_run(folder / f"{arm['name']}-{seed}.json", [arm], correct, labels, names, seed)


def the_view(folder: Path) -> ClassView:
    facet = next(f for f in assemble_board(read_folder(folder), []) if f.key == "fixture")
    (view,) = facet.class_views
    return view


def named(view: ClassView) -> list[ClassChange]:
    return [change for change in view.changes if change.verdict]


def test_newcombe_interval_equals_the_published_example() -> None:
    """Newcombe 1998, table II, (a), method 10: 56/70 against 48/80."""
    low, high = newcombe(*(np.array([v]) for v in (48 / 80, 56 / 70, 80, 70)))
    assert (round(low[0], 4), round(high[0], 4)) == (0.0524, 0.3339)


@pytest.mark.parametrize("right", [0, 41, 50])
def test_wilson_interval_equals_scipys_wherever_it_is_shown(right: int) -> None:
    expected = binomtest(right, 50).proportion_ci(0.95, method="wilson")
    low, high = wilson(np.array([right / 50]), np.array([50]))
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert share(np.arange(50) < right)["interval"] == [low[0], high[0]]


def test_single_runs_name_no_class_however_far_apart(tmp_path: Path) -> None:
    write_arm(tmp_path, REAL, np.array([0.9, 0.9]), 1000, [0], 0)
    write_arm(tmp_path, MADE, np.array([0.1, 0.9]), 1000, [0], 1)
    view = the_view(tmp_path)
    assert not named(view)
    assert view.rule.endswith(TOO_FEW)
    assert view.changes[0].high < 0  # the difference and its interval are shown all the same


def test_seeds_that_only_one_set_has_are_no_seeds(tmp_path: Path) -> None:
    write_arm(tmp_path, REAL, np.array([0.9, 0.9]), 500, [0, 1, 2], 0)
    write_arm(tmp_path, MADE, np.array([0.1, 0.9]), 500, [1, 2, 3], 1)
    assert not named(the_view(tmp_path))


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize(("classes", "n"), [(10, 200), (200, 50)])
def test_chance_between_seeds_is_not_called_harm(
    tmp_path: Path, seeds: int, classes: int, n: int
) -> None:
    """Both sets are worth the same; a class's accuracy moves by 5 points from seed to seed."""
    rng = np.random.default_rng(classes + seeds)
    for i, arm in enumerate((REAL, MADE)):
        rates = 0.75 + 0.05 * rng.standard_normal((seeds, classes))
        write_arm(tmp_path, arm, rates, n, range(seeds), i)
    view = the_view(tmp_path)
    assert len(view.changes) == classes
    assert not named(view)
    if seeds == 1:  # what each class's own interval would have named
        assert sum(change.low > 0 or change.high < 0 for change in view.changes) > 0


def test_clear_harm_and_help_are_named_most_harmed_first(tmp_path: Path) -> None:
    write_arm(tmp_path, REAL, np.array([0.8, 0.8, 0.8]), 1000, range(3), 0)
    write_arm(tmp_path, MADE, np.array([0.9, 0.5, 0.8]), 1000, range(3), 1)
    view = the_view(tmp_path)
    found = [(c.name, c.verdict) for c in view.changes]
    assert found == [("class 1", "harmed"), ("class 2", ""), ("class 0", "helped")]


def test_leaderboard_and_study_name_the_same_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    before, after = (0.7 + 0.1 * rng.standard_normal(20) for _ in range(2))
    write_arm(tmp_path, REAL, before, 200, range(4), 0)
    write_arm(tmp_path, MADE, after, 200, range(4), 1)
    arms = [
        read_outcomes({s: tmp_path / f"{name}-{s}.parquet" for s in range(4)})
        for name in ("real", "made")
    ]
    names = [(f"n{i:04d}", f"class {i}") for i in range(20)]
    expected = {row["wnid"]: row["verdict"] for row in class_rows(*arms, names)}
    assert {c.wnid: c.verdict for c in the_view(tmp_path).changes} == expected
    assert set(expected.values()) == {"", "helped", "harmed"}


def test_test_images_with_other_ids_are_not_paired_and_the_page_says_so(tmp_path: Path) -> None:
    """As of another import of the same images: one of three runs of one set."""
    write_arm(tmp_path, REAL, np.array([0.9, 0.9]), 1000, range(3), 0)
    write_arm(tmp_path, MADE, np.array([0.1, 0.9]), 1000, range(3), 1)
    path = tmp_path / "made-1.parquet"
    table = pq.read_table(path)
    ids = pa.array([f"other-{i}" for i in range(len(table))])
    pq.write_table(table.set_column(0, "image_id", ids), path)
    view = the_view(tmp_path)
    assert not named(view)
    assert view.rule.endswith(OTHER_IDS)


def test_without_predictions_no_class_is_named_and_the_page_says_why(tmp_path: Path) -> None:
    results = [
        a_classifier_result([arm], top1, seed, per_class=[("a", top1), ("b", 0.5)])
        for arm, top1 in ((REAL, 0.9), (MADE, 0.2))
        for seed in range(3)
    ]
    view = the_view(write_all(tmp_path, results))
    assert not named(view)
    assert view.rule.endswith(NO_PREDICTIONS)


def test_committed_simulation_names_a_class_in_at_most_5_percent_of_pairs() -> None:
    found = json.loads((ROOT / "results" / "null-classes" / "null.json").read_text())
    rows = [row for row in found["rows"] if not row.get("other_images")]
    assert {(row["classes"], row["seeds"]) for row in rows} == {
        (classes, seeds) for classes in (10, 1000) for seeds in (1, 3, 5)
    }
    assert all(row["named"] <= 0.05 * row["pairs"] for row in rows)
    assert all(row["named"] == 0 for row in rows if row["seeds"] == 1)
    committed = next(row for row in rows if row["name"] == "committed studies")
    assert committed["pairs"] == 294


def test_classes_come_most_harmed_first() -> None:
    rows = [(w, w, 100, 0.8, x, "") for w, x in (("a", 0.9), ("b", 0.5), ("c", 0.8))]
    assert [c.wnid for c in class_changes(rows)] == ["b", "c", "a"]
    assert class_changes([]) == ()
