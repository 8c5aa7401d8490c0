"""The weighted vote of the nearest training images, as DINO evaluates (Caron et al. 2021, A.1)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.representation.parts import Downstream
from release.results.statistics import share

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 20
TEMPERATURE = 0.07
BLOCK = 1 << 28  # similarities held at once: of test images, as many as that allows
SETTINGS: dict[str, Any] = {
    "protocol": "dino-knn",
    "similarity": "cosine",
    "k": NEIGHBOURS,
    "temperature": TEMPERATURE,
    "vote": "sum of exp(similarity / temperature) a class",
    "among": "train",
    "interval": "Wilson, over test images, 95%",
}


def nearest_neighbours(downstream: Downstream, device: str = "cpu") -> dict[str, Any]:
    """Accuracy on the test images."""
    import torch

    train, test = downstream.train, downstream.test
    votes = knn_votes(
        torch.from_numpy(train.features).to(device),
        torch.from_numpy(train.labels).to(device),
        torch.from_numpy(test.features).to(device),
        downstream.classes,
    )
    right: np.ndarray = votes.argmax(dim=1).cpu().numpy() == test.labels
    return {**share(right), "train_n": len(train)}


def knn_votes(train: "Tensor", labels: "Tensor", test: "Tensor", classes: int) -> "Tensor":
    """[M,classes] for each of the test features [M,D], of train features [N,D], labels int64[N]."""
    from torch.nn.functional import normalize

    known = normalize(train, dim=1)
    votes = test.new_zeros(len(test), classes)
    block = max(1, BLOCK // max(1, len(train)))
    for start in range(0, len(test), block):
        asked = normalize(test[start : start + block], dim=1)
        similarity, nearest = (asked @ known.T).topk(NEIGHBOURS, dim=1)
        weight = (similarity / TEMPERATURE).exp()
        votes[start : start + block].scatter_add_(1, labels[nearest], weight)
    return votes
