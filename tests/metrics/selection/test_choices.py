"""What a selection may say of few pairs, few seeds, larger releases and replaced weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy.stats import spearmanr

from classifiers.recipes.recipe import load_recipe
from metrics.selection.cas import CasSettings
from metrics.selection.selection import Point, Selection, _require_one_network
from release.errors import UserError
from release.results.result import Result
from release.results.statistics import rank_correlation, student_interval


@pytest.mark.parametrize(("y", "orders"), [([9.0, 8, 7], 2 / 6), ([9.0, 8, 7, 6], 2 / 24)])
def test_the_p_of_few_pairs_is_over_all_their_orders(y: list[float], orders: float) -> None:
    assert rank_correlation(range(len(y)), y)["p"] == pytest.approx(orders)
    x, mixed = list(range(12)), [3, 1, 2, 0, 5, 4, 8, 7, 6, 11, 9, 10]
    assert rank_correlation(x, mixed)["p"] == pytest.approx(spearmanr(x, mixed).pvalue)


def test_seeds_that_differ_alike_say_no_more_than_their_images() -> None:
    """Two differences of one image of 100 each are equal by rounding alone."""
    found = student_interval(np.array([0.01, 0.01]), 100)
    assert found is not None
    assert found[0] < 0 < found[1]
    apart = np.array([0.1, 0.3, 0.2])
    assert student_interval(apart, 100) == student_interval(apart)


def test_a_classifier_learns_from_no_more_images_than_its_name_says() -> None:
    """Though the release of its point was made larger by an earlier call."""
    place, point = SimpleNamespace(out=Path("out"), real=Path("real")), SimpleNamespace(name="a")
    cas = CasSettings(load_recipe("fashion-mnist-small"), 100, (0,), 32)
    task = cas.task(cast(Selection, place), cast(Point, point))
    assert task.per_class == 100


def test_distances_by_replaced_weights_are_not_ranked_together() -> None:
    found = {
        name: Result("scores", "shapes", {}, {"extractor": "classifier", "weights": name}, {}, {})
        for name in "ab"
    }
    selection = cast(Selection, SimpleNamespace(extractor="classifier@w.safetensors"))
    with pytest.raises(UserError, match="of a and b are of two networks"):
        _require_one_network(selection, found)
    _require_one_network(selection, {"a": found["a"], "c": found["a"]})
