"""What the predictions of one training set's classifiers say.

All runs are tested on the same images, so runs can be compared image by image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifiers.training.predictions import TOP
from release.errors import UserError
from release.files.storage import ReleasePath
from release.results.statistics import (
    wilson_interval,
)


@dataclass(frozen=True)
class Outcomes:
    """The predictions of one arm, trained with several seeds.

    seeds int; image_ids str[N]; labels int64[N]; top int32[S,N,k], the k most probable labels.
    """

    seeds: tuple[int, ...]
    image_ids: tuple[str, ...]
    labels: np.ndarray
    top: np.ndarray

    def correct(self, k: int = 1) -> np.ndarray:
        """bool[S,N]: the true label is among the first k."""
        return (self.top[:, :, :k] == self.labels[None, :, None]).any(axis=2)  # type: ignore[no-any-return]


def read_outcomes(paths: dict[int, ReleasePath]) -> Outcomes:
    """The predictions that `train-classifier` wrote, by seed; UserError unless of one test set."""
    tables = {seed: pq.read_table(path) for seed, path in sorted(paths.items())}
    first = next(iter(tables.values()))
    for seed, table in tables.items():
        for column in ("image_id", "label"):
            if not table[column].equals(first[column]):
                raise UserError(f"{paths[seed]} is of other test images than the other seeds'")
    top = [top_labels(table) for table in tables.values()]
    return Outcomes(
        seeds=tuple(tables),
        image_ids=tuple(first["image_id"].to_pylist()),
        labels=first["label"].to_numpy().astype(np.int64),
        top=np.stack(top),
    )


def of_the_same_images(paths: Iterable[ReleasePath]) -> bool:
    """Whether predictions can be paired one by one: the same ids, and labels, of test images."""
    tables = [pq.read_table(path, columns=["image_id", "label"]) for path in paths]
    return all(table.equals(tables[0]) for table in tables)


def top_labels(table: pa.Table) -> np.ndarray:
    """int32[N,k] of a table of predictions: the k most probable labels of each image."""
    flat: np.ndarray = table["top5"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), -1).astype(np.int32, copy=False)


def accuracy(outcomes: Outcomes, k: int) -> dict[str, Any]:
    """Top-k: mean and standard deviation over seeds, each seed's, n test images, their interval.

    interval: Wilson's, of the mean over seeds on n images (95%); None of chance in seeds.
    """
    by_seed = outcomes.correct(k).mean(axis=1)
    mean, n = float(by_seed.mean()), len(outcomes.labels)
    return {
        "mean": mean,
        "std": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        "by_seed": {str(s): float(v) for s, v in zip(outcomes.seeds, by_seed, strict=True)},
        "n": n,
        "interval": wilson_interval(mean, n),
    }


def require_paired(baseline: Outcomes, other: Outcomes) -> None:
    """UserError unless both have the same seeds and test images."""
    if baseline.seeds != other.seeds:
        raise UserError(f"seeds {other.seeds} cannot be paired with {baseline.seeds}")
    if baseline.image_ids != other.image_ids:
        raise UserError("two arms were tested on different images: they cannot be paired")


def has_top5(classes: int) -> bool:
    """With five classes or fewer it is always 1."""
    return classes > TOP
