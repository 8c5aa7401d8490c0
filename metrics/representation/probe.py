"""The linear probe: logistic regression on frozen features, its strength chosen on tuning images.

The protocol of SimCLR (Chen et al. 2020, B.8) and SynCLR (Tian et al. 2024, C): L-BFGS without
augmentation, 45 strengths log-spaced in 1e-6 … 1e5, the best on held-out training images refitted
on all of them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.features.stopping import USUAL
from metrics.representation.parts import Downstream, Labelled
from release.results.statistics import share

if TYPE_CHECKING:
    from torch import Tensor

    from metrics.features.logistic import Linear

STRENGTHS = np.logspace(-6, 5, 45)
STOPPING = USUAL
SETTINGS: dict[str, Any] = {
    "protocol": "linear-probe-lbfgs-45",
    "loss": "sum of cross-entropies + strength/2 |W|^2, bias free",
    "strengths": "45, log-spaced in 1e-6 to 1e5, the largest of the best on tuning",
    "refitted_on": "train",
    "excess": STOPPING.excess,
    "iterations": STOPPING.iterations,
    "interval": "Wilson, over test images, 95%",
}


def linear_probe(downstream: Downstream, device: str = "cpu") -> dict[str, Any]:
    """Accuracy on the test images, with the strength that was chosen and its tuning accuracy."""
    strength, tuning = choose_strength(
        downstream.fit, downstream.tuning, downstream.classes, device
    )
    fitted = fit(downstream.train, downstream.classes, np.array([strength]), device)
    right = correct(fitted, downstream.test)[0]
    return {
        **share(right),
        "strength": strength,
        "tuning_accuracy": tuning,
        "train_n": len(downstream.train),
        "converged": bool(fitted.converged.all()),
    }


def choose_strength(
    fit_on: Labelled, tuning: Labelled, classes: int, device: str
) -> tuple[float, float]:
    """The strongest of those that are best on the tuning images, and their accuracy."""
    accuracy = correct(fit(fit_on, classes, STRENGTHS, device), tuning).mean(axis=1)
    best = int(np.flatnonzero(accuracy == accuracy.max())[-1])
    return float(STRENGTHS[best]), float(accuracy[best])


def fit(data: Labelled, classes: int, strengths: np.ndarray, device: str) -> "Linear":
    """A regression a strength."""
    import torch

    from metrics.features.logistic import fit_logistic

    return fit_logistic(
        _tensor(data.features, device),
        torch.from_numpy(data.labels).to(device),
        classes,
        torch.from_numpy(strengths).to(device),
        stopping=STOPPING,
    )


def correct(fitted: "Linear", data: Labelled) -> np.ndarray:
    """bool[P,N]: which images each of the regressions has right."""
    import torch

    features = _tensor(data.features, str(fitted.bias.device))
    labels = torch.from_numpy(data.labels).to(features.device)
    found = [logits.argmax(dim=1) == labels for logits in fitted.logits(features)]
    return torch.stack(found).cpu().numpy()


def _tensor(features: np.ndarray, device: str) -> "Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(features)).to(device)
