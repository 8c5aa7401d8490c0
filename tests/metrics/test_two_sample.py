"""The classifier two-sample test: how well generated images are told from real ones."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from metrics.states.sample import Sample
from metrics.states.two_sample import EASIEST, FOLDS, STRENGTH, held_out_odds, two_sample_values


def a_sample(n: int, shift: float, seed: int, d: int = 6) -> Sample:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(n, d)) + shift * np.eye(d)[0]) * np.logspace(0, 3, d)
    return Sample.of(np.arange(n, dtype=np.uint64), features.astype(np.float32), np.zeros(n, int))


def test_odds_are_scikit_learns_cross_validated():
    """Whatever the features' units, and though they are off their origin."""
    generated, real = (a_sample(60, shift, i).features for i, shift in enumerate((1.0, 0.0)))
    both = np.concatenate([generated, real]).astype(float) + 5.0
    scaled, labels = both / both.std(axis=0), np.repeat([1, 0], 60)
    fold, expected = np.tile(np.arange(60) % FOLDS, 2), np.zeros(120)
    for own in range(FOLDS):
        learned = fold != own
        # its one vector is the difference of our two, each of which is penalised
        theirs = LogisticRegression(C=2 / (STRENGTH * learned.sum()), tol=1e-10, max_iter=10_000)
        theirs.fit(scaled[learned], labels[learned])
        expected[~learned] = theirs.decision_function(scaled[~learned])
    odds = held_out_odds(both[:60], both[60:])
    assert np.abs(odds - expected).max() < 0.05  # in nats: ours stops 1e-6 above the least loss


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.45, 0.55), (2.0, 0.8, 0.88)])
def test_accuracy_is_that_of_the_best_rule(shift, low, high):
    """Of two Gaussians whose means are `shift` deviations apart: that of half the way between."""
    value = two_sample_values(a_sample(800, shift, 1), a_sample(600, 0.0, 2))["c2st"]
    assert value["n"] == 1200
    assert low < value["value"] < high
    assert value["interval"][0] < value["value"] < value["interval"][1]


def test_the_easiest_are_those_farthest_off():
    images, reference = a_sample(200, 0.0, 1), a_sample(200, 0.0, 2)
    images.features[:20, 0] += 10
    easiest = two_sample_values(images, reference)["c2st"]["easiest"]
    assert len(easiest) == EASIEST
    assert {entry["image"] for entry in easiest} <= set(range(20))
