"""Effective robustness: accuracy on a shifted set beyond what standard accuracy predicts.

Taori et al. 2020: on logit axes the accuracies of standardly trained classifiers lie on a line.
"""

from typing import Any

import numpy as np

from release.errors import UserError

RESAMPLES = 1000
SETTINGS: dict[str, Any] = {
    "protocol": "effective-robustness-logit",
    "line": "least squares on logits of both accuracies",
    "bounds": "accuracies at least half an image from 0 and 1",
    "interval": "percentile bootstrap over images of both sets, line fitted anew, 95%",
    "resamples": RESAMPLES,
}


def effective_robustness(
    standard: np.ndarray,
    shifted: np.ndarray,
    line_standard: np.ndarray,
    line_shifted: np.ndarray,
) -> dict[str, Any]:
    """Shifted accuracy less the line's at the same standard accuracy.

    standard bool[N], shifted bool[M]: which images a network has right; line_standard bool[L,N],
    line_shifted bool[L,M]: the same of L >= 2 networks that were trained on real images.
    """
    all_standard = np.vstack([standard, line_standard])
    all_shifted = np.vstack([shifted, line_shifted])
    n, m = len(standard), len(shifted)
    x, y = (bounded(right.mean(axis=1), right.shape[1]) for right in (all_standard, all_shifted))
    if len(set(x[1:].tolist())) < 2:
        raise UserError(
            "effective robustness needs a line: name with --real-trained two or more classifiers "
            "trained on real images whose accuracies differ"
        )
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        rows, columns = rng.integers(n, size=n), rng.integers(m, size=m)
        drawn_x = bounded(all_standard[:, rows].mean(axis=1), n)
        drawn_y = bounded(all_shifted[:, columns].mean(axis=1), m)
        if np.ptp(drawn_x[1:]) > 0:
            found.append(beyond_line(drawn_x, drawn_y))
    slope, intercept = fit_line(x[1:], y[1:])
    return {
        "value": beyond_line(x, y),
        "n": m,
        "interval": np.quantile(found, [0.025, 0.975]).tolist(),
        "slope": slope,
        "intercept": intercept,
        "line_n": len(line_standard),
    }


def beyond_line(x: np.ndarray, y: np.ndarray) -> float:
    """y[0] less what the line through all others predicts at x[0]; accuracies."""
    slope, intercept = fit_line(x[1:], y[1:])
    return float(y[0] - 1 / (1 + np.exp(-(slope * logit(x[0]) + intercept))))


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of logit(y) over logit(x), by least squares."""
    slope, intercept = np.polyfit(logit(x), logit(y), 1)
    return float(slope), float(intercept)


def logit(share: np.ndarray) -> np.ndarray:
    """log(p / (1 - p))."""
    return np.asarray(np.log(share / (1 - share)))


def bounded(shares: np.ndarray, n: int) -> np.ndarray:
    """Within half an image of 0 and 1, where the logit ends."""
    return np.asarray(np.clip(shares, 0.5 / n, 1 - 0.5 / n))
