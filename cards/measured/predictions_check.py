"""Whether a classifier's result says what the predictions beside it say."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifiers.training.outcomes import top_labels
from release.errors import UserError
from release.files.commit import sha256_file

if TYPE_CHECKING:
    from cards.measured.result_schema import ClassifierResult

ROUNDING = 1e-9  # of a share that was written with all its digits


def predictions_beside(result: Path) -> Path:
    """Where train-classifier writes them: under the result's name."""
    return result.with_suffix(".parquet")


def check_against_predictions(result: "ClassifierResult") -> bool:
    """False where no predictions stand beside the result; UserError where they disagree with it."""
    path = predictions_beside(result.path)
    if not path.is_file():
        return False
    labels, top = _labels_and_top(path)
    right = labels == top[:, 0]
    top1 = result.values.top1
    if top1.n != len(right):
        raise UserError(f"{result.path} is of {top1.n:,} images, {path.name} of {len(right):,}")
    _compare(result.path, "top-1", top1.value, float(right.mean()), path)
    present, place = np.unique(labels, return_inverse=True)
    by_class = np.bincount(place, right) / np.bincount(place)
    per_class = result.values.per_class
    if per_class and len(per_class) != len(present):
        raise UserError(
            f"{result.path} has {len(per_class):,} classes, {path.name} {len(present):,}"
        )
    for entry, counted in zip(per_class, by_class.tolist(), strict=False):
        _compare(result.path, f"top-1 of {entry.name}", entry.top1, counted, path)
    if result.values.top5 is not None:
        among = float((labels[:, None] == top).any(axis=1).mean())
        _compare(result.path, "top-5", result.values.top5.value, among, path)
    if result.values.predictions_sha256 not in (None, sha256_file(path)):
        raise UserError(
            f"{path} is not the file of predictions that {result.path.name} was made of"
        )
    return True


def _compare(result: Path, what: str, stated: float, counted: float, predictions: Path) -> None:
    if abs(stated - counted) > ROUNDING:
        raise UserError(
            f"{result} says {what} is {100 * stated:.2f}%, the predictions beside it "
            f"({predictions.name}) {100 * counted:.2f}%: one of the two was changed after it was "
            "written"
        )


def _labels_and_top(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """int64[N], the true label of each test image; int32[N,k], the most probable ones."""
    try:
        table = pq.read_table(path, columns=["label", "top5"])
        labels, top = table["label"].to_numpy().astype(np.int64), top_labels(table)
        if not len(labels) or not top.shape[1]:
            raise ValueError("it holds no rows")
        return labels, top
    except (pa.ArrowException, ValueError, KeyError, IndexError, OSError) as error:
        raise UserError(f"{path} is no file of predictions: {error}") from None
