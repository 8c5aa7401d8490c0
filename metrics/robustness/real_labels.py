"""ReaL labels: every class that people see in an image (Beyer et al. 2020)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from release.errors import UserError
from release.results.statistics import share

NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
SETTINGS: dict[str, Any] = {
    "protocol": "real-labels",
    "images": "those with one label or more",
    "right": "the first prediction is one of the labels",
    "interval": "Wilson, over images, 95%",
}


def read_real_labels(path: Path, classes: int) -> list[list[int]]:
    """Labels of ILSVRC2012_val_00000001 and on, as reassessed-imagenet's real.json has them."""
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--real-labels {path} cannot be read: {error}") from None
    whole = isinstance(content, list) and all(
        isinstance(own, list) and all(isinstance(i, int) and 0 <= i < classes for i in own)
        for own in content
    )
    if not whole:
        raise UserError(
            f"--real-labels {path}: give a list that has, for each validation image in order, a "
            f"list of labels from 0 to {classes - 1}, such as real.json of reassessed-imagenet"
        )
    return [list(own) for own in content]


def real_accuracy(
    image_ids: Sequence[str], predicted: np.ndarray, labels: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Share of the images with labels whose prediction int64[N] is one of them."""
    right = []
    for image_id, first in zip(image_ids, predicted.tolist(), strict=True):
        found = NUMBER.search(image_id)
        number = int(found[1]) if found else 0
        if not 0 < number <= len(labels):
            raise UserError(
                f"--real-labels: image {image_id} has no number of a validation image "
                f"(ILSVRC2012_val_00000001 to {len(labels):08d}) in its id"
            )
        if labels[number - 1]:
            right.append(first in labels[number - 1])
    if not right:
        raise UserError("--real-labels: no image has a label")
    return share(np.array(right))
