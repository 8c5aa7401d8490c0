"""A classifier two-sample test: how well generated images are told from real ones by features.

Lopez-Paz & Oquab 2017: a classifier learns to tell two samples apart; its accuracy on images that
it did not learn from is 0.5 if they are of one distribution.
"""

from typing import Any

import numpy as np

from metrics.states.sample import Sample
from release.results.statistics import share

FOLDS = 5
STRENGTH = 0.01  # of the penalty, for each image learned from
EASIEST = 16  # images that a result names


def two_sample_values(images: Sample, reference: Sample) -> dict[str, dict[str, Any]]:
    """c2st: accuracy of a cross-validated logistic regression; easiest: what it is surest of.

    As many images of each set; features in units of their deviation. An image is judged by the
    regression of the four folds that it is not in. easiest: generated images, log-odds of each.
    """
    n = min(images.n, reference.n)
    odds = held_out_odds(images.features[:n], reference.features[:n])
    first = np.argsort(-odds[:n], kind="stable")[:EASIEST]
    easiest = [{"image": int(images.keys[i]), "log_odds": float(odds[i])} for i in first]
    right = np.concatenate([odds[:n] > 0, odds[n:] <= 0])
    values: dict[str, dict[str, Any]] = {}
    values["c2st"] = {**share(right), "easiest": easiest}
    return values


def held_out_odds(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    """float[2n]: log-odds that each image, of generated [n,D] then real [n,D], is generated."""
    import torch

    from metrics.features.logistic import fit_logistic

    n = len(generated)
    both = np.concatenate([generated, real])
    deviation = both.std(axis=0)
    features = torch.from_numpy(both / np.where(deviation > 0, deviation, 1))
    labels = torch.cat([torch.ones(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)])
    fold = torch.arange(n).remainder(FOLDS).repeat(2)
    learned = fold != torch.arange(FOLDS)[:, None]
    strengths = STRENGTH * learned.sum(dim=1).double()
    fitted = fit_logistic(features, labels, 2, strengths, learned.to(features))
    odds = torch.stack([logits[:, 1] - logits[:, 0] for logits in fitted.logits(features)])
    return np.asarray(odds[fold, torch.arange(2 * n)].numpy())
