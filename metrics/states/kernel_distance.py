"""KID and CMMD: distances between means in a kernel's feature space."""

from dataclasses import dataclass

import numpy as np

from metrics.features.mergeable import Groups, buckets_of
from metrics.states.frechet import Moments
from release.errors import UserError

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
    return _KernelSums.of(x, y).value()


def kid_with_error(x: np.ndarray, y: np.ndarray) -> tuple[float, float | None]:
    """KID and its standard error by leaving out every image of both sets in turn.

    None with fewer than three images on a side. The jackknife of a two-sample U-statistic
    (Arvesen 1969): the variances over x and over y add up.
    """
    sums = _KernelSums.of(x, y)
    if min(len(x), len(y)) < 3:
        return sums.value(), None
    variance = _jackknife_variance(sums.without_each()) + _jackknife_variance(
        sums.swapped().without_each()
    )
    return sums.value(), variance**0.5


@dataclass(frozen=True)
class _KernelSums:
    """Sums of k(x_i, ·) over the other x and over the y (float64[N]), and the same for y."""

    x_own: np.ndarray
    x_other: np.ndarray
    y_own: np.ndarray
    y_other: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "_KernelSums":
        x, y = x.astype(np.float64), y.astype(np.float64)
        cross = _cubic(x, y)
        return cls(_row_sums(x), cross.sum(axis=1), _row_sums(y), cross.sum(axis=0))

    def swapped(self) -> "_KernelSums":
        return _KernelSums(self.y_own, self.y_other, self.x_own, self.x_other)

    def value(self) -> float:
        n, m = len(self.x_own), len(self.y_own)
        if min(n, m) < 2:
            raise UserError(f"KID needs at least 2 images on both sides, got {n} and {m}")
        own = self.x_own.sum() / (n * (n - 1)) + self.y_own.sum() / (m * (m - 1))
        return float(own - 2 * self.x_other.sum() / (n * m))

    def without_each(self) -> np.ndarray:
        """float64[N]: the value without x_i, for each i."""
        n, m = len(self.x_own), len(self.y_own)
        own = (self.x_own.sum() - 2 * self.x_own) / ((n - 1) * (n - 2))
        other = (self.x_other.sum() - self.x_other) / ((n - 1) * m)
        return np.asarray(own + self.y_own.sum() / (m * (m - 1)) - 2 * other)


def _jackknife_variance(values: np.ndarray) -> float:
    n = len(values)
    return float((n - 1) / n * ((values - values.mean()) ** 2).sum())


def _row_sums(x: np.ndarray) -> np.ndarray:
    """float64[N]: sums of the kernel of each row with all others."""
    kernel = _cubic(x, x)
    return np.asarray(kernel.sum(axis=1) - kernel.diagonal())


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
    second = images.mean_outer - reference.mean_outer
    value = (a - a**2 * c) * (first @ first) + a**2 / 2 * (second**2).sum()
    return float(CMMD_SCALE * np.exp(a * (c - 1)) * value)
