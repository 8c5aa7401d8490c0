"""A linear probe of 45 strengths over scikit-learn, which fits them one by one.

    python benchmarks/speed/probe_speed.py --out results/probe-speed

Features are made up: 10,000 x 768, ten classes that overlap, a spectrum that falls as a network's
does, off their origin. Both fit all 45 strengths of the protocol on one thread, in turn, for
several rounds; scikit-learn by its L-BFGS at two tolerances. Quality is the excess of the mean
loss, in nats, over that of a fit in float64 to 1e-8, the largest over every fourth strength.
ratio: CPU seconds of scikit-learn over ours, at its loosest tolerance whose excess is at most twice
ours; medians over rounds.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression

from metrics.features.logistic import Linear, fit_logistic
from metrics.features.stopping import Stopping
from metrics.representation.probe import STRENGTHS
from release.results.result import environment

IMAGES, DIMENSIONS, CLASSES = 10_000, 768, 10
TOLERANCES = (1e-4, 1e-5)  # scikit-learn's own is 1e-4
JUDGED = slice(None, None, 4)  # of the strengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for probe_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that L-BFGS stopped early is measured here
    found = measure(options.images, options.dimensions, options.rounds)
    print(json.dumps(found))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1, sort_keys=True) + "\n"
        (options.out / "probe_speed.json").write_text(text)


def made_up(images: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """float32[n,D] and int64[n]."""
    rng = np.random.default_rng(0)
    spectrum = np.linspace(1, 0.02, dimensions) ** 2
    labels = rng.integers(0, CLASSES, images)
    centres = 0.25 * rng.normal(size=(CLASSES, dimensions))
    own = (rng.normal(size=(images, dimensions)) + centres[labels]) * spectrum
    rotation = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    return (own @ rotation + 0.3).astype(np.float32), labels


def measure(images: int, dimensions: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds, with n, versions and hardware."""
    features, labels = made_up(images, dimensions)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    strengths = torch.from_numpy(STRENGTHS)
    exact = fit_logistic(x.double(), y, CLASSES, strengths[JUDGED], stopping=Stopping(1e-8, 1000))
    least = losses(exact, x, y)
    print("reference fitted", file=sys.stderr)
    contenders: dict[str, Callable[[], Linear]] = {
        "ours": lambda: fit_logistic(x, y, CLASSES, strengths),
        **{f"scikit-learn {t:g}": by_scikit_learn(features, labels, t) for t in TOLERANCES},
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    excess: dict[str, float] = {}
    for _ in range(rounds):
        for name, fit in contenders.items():
            start = time.process_time()
            fitted = fit()
            seconds[name].append(time.process_time() - start)
            judged = Linear(fitted.weight[JUDGED], fitted.bias[JUDGED], fitted.converged[JUDGED])
            excess[name] = float((losses(judged, x, y) - least).max())
            print(f"{name}: {seconds[name][-1]:.1f} s, {excess[name]:.1e}", file=sys.stderr)
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    theirs = [name for name in contenders if name != "ours"]
    level = next((n for n in theirs if excess[n] <= 2 * excess["ours"]), theirs[-1])
    return {
        "images": images,
        "dimensions": dimensions,
        "classes": CLASSES,
        "strengths": len(STRENGTHS),
        "rounds": rounds,
        "threads": 1,
        "cpu_seconds": medians,
        "all_cpu_seconds": seconds,
        "largest_excess_loss": excess,
        "compared_with": level,
        "ratio": medians[level] / medians["ours"],
        "ratio_to_default_tolerance": medians["scikit-learn 0.0001"] / medians["ours"],
        "environment": environment(),
        "scikit_learn": sklearn.__version__,
    }


def by_scikit_learn(
    features: np.ndarray, labels: np.ndarray, tolerance: float
) -> Callable[[], Linear]:
    """One fit after another."""

    def fit() -> Linear:
        models = [
            LogisticRegression(C=1 / strength, tol=tolerance, max_iter=1000).fit(features, labels)
            for strength in STRENGTHS
        ]
        return Linear(
            torch.stack([torch.from_numpy(model.coef_.T.copy()) for model in models]),
            torch.stack([torch.from_numpy(model.intercept_) for model in models]),
            torch.ones(len(models), dtype=torch.bool),
        )

    return fit


def losses(fitted: Linear, features: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """float64[P]: the mean penalised loss at each strength that is judged."""
    found = []
    for weight, bias, strength in zip(fitted.weight, fitted.bias, STRENGTHS[JUDGED], strict=True):
        logits = features.double() @ weight.double() + bias.double()
        penalty = strength / 2 * weight.double().square().sum() / len(features)
        found.append(float(torch.nn.functional.cross_entropy(logits, labels) + penalty))
    return np.array(found)


if __name__ == "__main__":
    main()
