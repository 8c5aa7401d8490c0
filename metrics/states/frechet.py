"""Fréchet distance between Gaussians fitted to features (Heusel et al. 2017), from sums."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from metrics.features.mergeable import Groups, buckets_of
from metrics.states.intervals import MINIMUM, Estimate, extrapolate_both, jackknife
from release.errors import UserError

# Below, a covariance is mostly noise: no distance within a class, and nothing about infinitely many
# images, whose interval would miss it (benchmarks/trust/fd_infinity_coverage.py).
IMAGES_PER_DIMENSION = 5


@dataclass(frozen=True)
class Moments:
    """n, Σx float64[D] and scatter Σ(x - m)(x - m)ᵀ float64[D,D] of n vectors x of mean m.

    Centred, since Σxxᵀ would lose the digits that it shares with n·mmᵀ.
    """

    n: int
    total: np.ndarray
    scatter: np.ndarray

    @classmethod
    def from_features(cls, features: np.ndarray) -> "Moments":
        """Of float[N,D], N at least 1."""
        x = features.astype(np.float64)
        total = x.sum(axis=0)
        centred = x - total / len(x)
        return cls(len(x), total, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """Of both sets: scatters add up, and that between the means (Chan et al. 1979)."""
        apart = self.mean - other.mean
        between = np.outer(apart, apart) * (self.n * other.n / (self.n + other.n))
        return Moments(
            self.n + other.n, self.total + other.total, self.scatter + other.scatter + between
        )

    @property
    def mean(self) -> np.ndarray:
        """float64[D]."""
        return np.asarray(self.total / self.n)

    @property
    def mean_outer(self) -> np.ndarray:
        """float64[D,D]: Σxxᵀ/n."""
        return np.asarray(self.scatter / self.n + np.outer(self.mean, self.mean))

    @property
    def covariance(self) -> np.ndarray:
        """float64[D,D], divided by n - 1 as every FID code does."""
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 images, got {self.n}")
        return np.asarray(self.scatter / (self.n - 1))


@dataclass(frozen=True)
class StoredMoments:
    """Moments by bucket as arrays: keys, counts int64[g], totals [g,D], scatters float64[g,D,D]."""

    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    scatters: np.ndarray

    @classmethod
    def of(cls, buckets: Groups[Moments]) -> "StoredMoments":
        """The same numbers."""
        states = buckets.by_key.values()
        return cls(
            np.array(list(buckets.by_key), np.int64),
            np.array([state.n for state in states], np.int64),
            np.array([state.total for state in states]),
            np.array([state.scatter for state in states]),
        )

    @property
    def buckets(self) -> Groups[Moments]:
        """The same numbers."""
        rows = zip(self.keys, self.counts, self.totals, self.scatters, strict=True)
        return Groups({int(key): Moments(int(n), total, s) for key, n, total, s in rows})


def bucket_moments(features: np.ndarray, keys: np.ndarray) -> Groups[Moments]:
    """Moments of float[N,D] by jackknife bucket of their sampling keys uint64[N]."""
    return Groups.of(buckets_of(keys), lambda rows: Moments.from_features(features[rows]))


@dataclass(frozen=True)
class GaussianReference:
    """A Gaussian to measure distances from; its root is computed once.

    mean float64[D], covariance float64[D,D], n images it was fitted to; buckets: their moments by
    jackknife bucket, None where only the statistics are known.
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray
    buckets: Groups[Moments] | None = None

    @classmethod
    def from_moments(cls, moments: Moments) -> "GaussianReference":
        """Raises UserError for fewer than two images or features that are not finite."""
        covariance = moments.covariance
        if not np.isfinite(covariance).all():
            raise UserError("the reference's features are not finite")
        return cls(moments.n, moments.mean, covariance)

    @classmethod
    def from_buckets(cls, buckets: Groups[Moments]) -> "GaussianReference":
        """As from_moments, of all buckets together."""
        return replace(cls.from_moments(buckets.total), buckets=buckets)

    @cached_property
    def root(self) -> np.ndarray:
        """float64[D,r] with root @ rootᵀ = covariance, r its numerical rank."""
        return root_of(self.covariance)

    def distance(self, moments: Moments) -> float:
        """Squared Fréchet distance, never below 0.

        |μ1 - μ2|² + tr Σ1 + tr Σ2 - 2 tr (Σ1 Σ2)^½, and the last trace is the sum of the singular
        values of RᵀS for any R, S with RRᵀ = Σ1 and SSᵀ = Σ2: neither complex nor NaN, and several
        times as fast as a general matrix root.
        """
        if moments.total.shape != self.mean.shape:
            raise UserError(
                f"features have {len(moments.total)} dimensions, the reference {len(self.mean)}"
            )
        covariance = moments.covariance
        if not np.isfinite(covariance).all():
            raise UserError("features are not finite: the distance is not defined")
        difference = self.mean - moments.mean
        traces = np.trace(self.covariance) + np.trace(covariance)
        value = difference @ difference + traces - 2 * self.root_trace(covariance, moments.n - 1)
        return max(0.0, float(value))

    def root_trace(self, covariance: np.ndarray, rank: int) -> float:
        """Trace of (Σ1 Σ2)^½ with Σ2 of at most `rank`: what lies beyond is rounding."""
        return nuclear_norm(self.root.T @ root_of(covariance)[:, :rank])


def root_of(covariance: np.ndarray) -> np.ndarray:
    """float64[D,r] with root @ rootᵀ = covariance float64[D,D], r its numerical rank.

    By Cholesky factorisation with pivots (LAPACK's pstrf): 10 times as fast as by eigenvalues.
    """
    from scipy.linalg import lapack

    factor, pivots, rank, _ = lapack.dpstrf(covariance, lower=1)
    root = np.empty((len(factor), rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]
    return root


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values of float64[r,s].

    From the eigenvalues of its smaller Gram matrix: a third of the time of a decomposition. Small
    ones keep their digits because a product of pivoted Cholesky factors is graded.
    """
    if not matrix.size:
        return 0.0
    wide = matrix if len(matrix) <= len(matrix.T) else matrix.T
    from scipy import linalg

    squares = linalg.eigvalsh(wide @ wide.T, check_finite=False, driver="evd")
    return float(np.sqrt(squares.clip(min=0)).sum())


def frechet_bias(moments: Moments, n: int) -> float:
    """By how much n images overstate the distance to a reference of their own distribution.

    (1/n)·[tr Σ + ½ Σij λiλj(1 + δij)/(λi + λj)] with λ the eigenvalues of Σ, to second order, for
    Gaussian features. Σ is that of `moments`, not of the reference: where the two distributions
    differ the actual bias does too, and where there are few images a dimension their covariance
    has too few eigenvalues and the bias comes out too small. To report beside the extrapolated
    distance, not instead of it.
    """
    from scipy import linalg

    values = linalg.eigvalsh(moments.covariance).clip(min=0)
    sums = values[:, None] + values[None, :]
    products = values[:, None] * values[None, :] * (1 + np.eye(len(values)))
    terms = np.divide(products, sums, out=np.zeros_like(sums), where=sums > 0)
    return float(values.sum() + 0.5 * terms.sum()) / n


def frechet_infinity(images: Groups[Moments], own: Estimate, target: GaussianReference) -> Estimate:
    """The distance between infinitely many images of both sides (after Chong & Forsyth 2020).

    own: the jackknife of the distance of `images` to `target`; see extrapolation_refused.
    """
    if target.buckets is None:
        raise ValueError("the reference's images are not known")
    subject = GaussianReference.from_moments(images.total)
    return extrapolate_both(own, jackknife(target.buckets, subject.distance))


def images_to_extrapolate(dimensions: int) -> int:
    """So many on a side, or nothing is said of infinitely many."""
    return max(IMAGES_PER_DIMENSION * dimensions, MINIMUM)


def extrapolation_refused(n: int, target: GaussianReference) -> str | None:
    """Why nothing can be said of infinitely many images; None if it can."""
    dimensions = len(target.mean)
    needed = images_to_extrapolate(dimensions)
    if target.buckets is None:
        return "a file of statistics does not tell how its value falls with its own images"
    if min(n, target.n) < needed:
        return (
            f"{n:,} images against {target.n:,}, but {dimensions:,} dimensions need {needed:,} "
            "on both sides"
        )
    return None
