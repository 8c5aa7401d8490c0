"""KID and CMMD: distances between means in a kernel's feature space."""

import numpy as np

from metrics.frechet import Moments
from metrics.states import Groups, buckets_of

KID_BLOCK = 1000
CMMD_SIGMA = 10
CMMD_SCALE = 1000


def kid_blocks(images: np.ndarray, reference: np.ndarray, size: int = KID_BLOCK) -> np.ndarray:
    """float64[B]: the KID (Bińkowski et al. 2018) of consecutive blocks of `size` images each.

    float[N,D] and float[M,D] in random order; B = min(N, M) // size. With fewer than `size`
    images on a side there is one block, of as many as both sides have.
    """
    n = min(len(images), len(reference))
    size = min(size, n)
    starts = range(0, n - size + 1, size)
    return np.array([kid(images[s : s + size], reference[s : s + size]) for s in starts])


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD of float[N,D] and float[M,D], kernel (x·y/D + 1)³; may be negative."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _mean_off_diagonal(x) + _mean_off_diagonal(y) - 2 * float(_cubic(x, y).mean())


def _mean_off_diagonal(x: np.ndarray) -> float:
    kernel = _cubic(x, x)
    n = len(x)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def bucket_unit_moments(features: np.ndarray, keys: np.ndarray) -> Groups[Moments]:
    """Moments of float[N,D] scaled to length 1, by jackknife bucket; a zero vector stays zero."""
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return Groups.of(buckets_of(keys), lambda rows: Moments.from_features(unit[rows]))


def cmmd(images: Moments, reference: Moments) -> float:
    """CMMD (Jayasumana et al. 2024) of moments of unit vectors, 0 is best; times 1000 as there.

    The kernel exp(-|x - y|²/(2·10²)) of unit vectors is exp(a·(x·y - 1)) with a = 1/10². Expanded
    around c, the mean cosine of all pairs, to second order in a·(x·y - c), the biased estimator
    is a quadratic form in mean x - mean y and in Mx - My with M = Σxxᵀ/n: never negative, linear
    in n, within 1e-5 of the sum over pairs (2e-5 if the features have mean zero).
    """
    a = 1 / CMMD_SIGMA**2
    pooled = (images.total + reference.total) / (images.n + reference.n)
    c = pooled @ pooled
    first = images.mean - reference.mean
    second = images.outer / images.n - reference.outer / reference.n
    value = (a - a**2 * c) * (first @ first) + a**2 / 2 * (second**2).sum()
    return float(CMMD_SCALE * np.exp(a * (c - 1)) * value)
