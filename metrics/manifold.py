"""Precision, recall, density, coverage: which images lie among those of the other set."""

from dataclasses import dataclass

import numpy as np

PRECISION_NEIGHBOURS = 3  # Kynkäänniemi et al. 2019, and the ADM evaluator
DENSITY_NEIGHBOURS = 5  # Naeem et al. 2020
BLOCK = 1000  # images a side whose distances are held at a time: 8 MB


@dataclass(frozen=True)
class ManifoldScores:
    """One number an image, whose means are the scores.

    precision, density float64[N] of the generated images; recall, coverage float64[M] of the
    real ones.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray


def manifold_scores(images: np.ndarray, real: np.ndarray) -> ManifoldScores:
    """Of float[N,D] generated and float[M,D] real features.

    The ball of an image reaches to its k-th neighbour in its own set. precision: a generated
    image lies in some real ball; recall: a real image lies in some generated ball (k = 3);
    density: real balls a generated image lies in, over k; coverage: a real ball holds some
    generated image (k = 5).
    """
    narrow, wide = _radii(real, (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS))
    (own,) = _radii(images, (PRECISION_NEIGHBOURS,))
    precision, balls = np.zeros(len(images)), np.zeros(len(images), np.int64)
    recall, nearest = np.zeros(len(real)), np.full(len(real), np.inf)
    for rows in _blocks(len(images)):
        x = images[rows].astype(np.float64)
        for columns in _blocks(len(real)):
            distances = _squared_distances(x, real[columns].astype(np.float64))
            inside = (distances <= narrow[columns]).any(axis=1)
            precision[rows] = np.maximum(precision[rows], inside)
            balls[rows] += (distances <= wide[columns]).sum(axis=1)
            reached = (distances <= own[rows, None]).any(axis=0)
            recall[columns] = np.maximum(recall[columns], reached)
            nearest[columns] = np.minimum(nearest[columns], distances.min(axis=0))
    return ManifoldScores(
        precision, recall, balls / DENSITY_NEIGHBOURS, (nearest <= wide).astype(np.float64)
    )


def _radii(x: np.ndarray, neighbours: tuple[int, ...]) -> list[np.ndarray]:
    """Squared distance of each image to its k-th neighbour, float64[N] for each k.

    In a set of k images or fewer, to the furthest one.
    """
    places = [min(k, len(x) - 1) for k in neighbours]
    radii = [np.empty(len(x)) for _ in neighbours]
    for rows in _blocks(len(x)):
        block = x[rows].astype(np.float64)
        smallest = np.empty((len(block), 0))
        for columns in _blocks(len(x)):
            distances = _squared_distances(block, x[columns].astype(np.float64))
            if columns == rows:  # an image is its own neighbour at distance 0: place k counts it
                np.fill_diagonal(distances, 0.0)
            both = np.concatenate([smallest, distances], axis=1)
            smallest = np.sort(_smallest(both, max(places) + 1), axis=1)
        for radius, place in zip(radii, places, strict=True):
            radius[rows] = smallest[:, place]
    return radii


def _smallest(values: np.ndarray, k: int) -> np.ndarray:
    """float64[N,min(k,M)]: the smallest of each row of float64[N,M], in any order."""
    return values if values.shape[1] <= k else np.partition(values, k - 1, axis=1)[:, :k]


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64[N,M]; in float64 the products cancel to about 1e-15 of |x|² + |y|²."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :]
    return np.asarray((squares - 2 * (x @ y.T)).clip(min=0))
