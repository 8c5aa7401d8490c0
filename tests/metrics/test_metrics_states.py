from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from scipy.special import log_softmax, softmax

from metrics.features.mergeable import Groups, buckets_of, merge_all, sampling_keys
from metrics.scoring.metric_list import frechet_values
from metrics.states.diversity import vendi_score
from metrics.states.frechet import (
    GaussianReference,
    Moments,
    StoredMoments,
    bucket_moments,
    frechet_bias,
    nuclear_norm,
    root_of,
)
from metrics.states.inception_score import InceptionScoreState, ScoreSums, mean_score
from metrics.states.intervals import jackknife
from metrics.states.kernel_distance import bucket_unit_moments, cmmd
from release.errors import UserError


def correlated(seed: int, n: int, d: int = 48) -> np.ndarray:
    """float32[n,d] with variances over three orders of magnitude and a mean far from zero."""
    mixing = np.random.default_rng(7).normal(size=(d, d)) * np.logspace(0, -1.5, d)
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ mixing + 3 + 0.1 * seed).astype(np.float32)


def keys(n: int) -> np.ndarray:
    return sampling_keys([f"image-{i}" for i in range(n)])


def distance(x: np.ndarray, y: np.ndarray) -> float:
    reference = GaussianReference.from_moments(Moments.from_features(y))
    return reference.distance(Moments.from_features(x))


def sqrtm_distance(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    difference = x.mean(axis=0) - y.mean(axis=0)
    root = linalg.sqrtm(s1 @ s2)
    return float(difference @ difference + np.trace(s1 + s2 - 2 * np.real(root)))


def test_distance_equals_a_general_matrix_root():
    x, y = correlated(1, 500), correlated(2, 400)
    assert distance(x, y) == pytest.approx(sqrtm_distance(x, y), rel=1e-9)


def test_distance_of_known_gaussians():
    """Diagonal covariances a² and b², means apart by c: c² + Σ (a - b)²."""
    rng = np.random.default_rng(0)
    whitened = rng.normal(size=(200, 5))
    whitened -= whitened.mean(axis=0)
    whitened /= np.sqrt(np.cov(whitened, rowvar=False).diagonal())
    q, _ = linalg.qr(whitened, mode="economic")
    white = q * np.sqrt(199)
    a, b = np.array([1, 2, 3, 4, 5.0]), np.array([5, 4, 3, 2, 1.0])
    assert distance(white * a + 2, white * b) == pytest.approx(5 * 4 + ((a - b) ** 2).sum())


@pytest.mark.parametrize(("n1", "n2"), [(10, 12), (10, 300), (300, 10), (2, 2)])
def test_fewer_images_than_dimensions(n1, n2):
    """Against the singular values of the centred features, which need no root of a covariance."""
    x, y = correlated(1, n1).astype(np.float64), correlated(2, n2).astype(np.float64)
    a = (x - x.mean(axis=0)) / np.sqrt(n1 - 1)
    b = (y - y.mean(axis=0)) / np.sqrt(n2 - 1)
    difference = x.mean(axis=0) - y.mean(axis=0)
    nuclear = linalg.svdvals(a @ b.T).sum()
    exact = difference @ difference + (a**2).sum() + (b**2).sum() - 2 * nuclear
    assert distance(x, y) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("n", [2, 30, 500])
def test_identical_sets_are_at_distance_zero(n):
    x = correlated(3, n)
    scale = np.trace(Moments.from_features(x).covariance)
    assert 0 <= distance(x, x) < 1e-12 * scale


def test_constant_features():
    x = np.full((50, 8), 2.5)
    assert distance(x, x) == 0
    assert distance(x, correlated(1, 60, 8)) > 0
    assert distance(correlated(1, 60, 8), x) == pytest.approx(distance(x, correlated(1, 60, 8)))


def test_one_image_and_infinite_features_are_refused():
    with pytest.raises(UserError, match="at least 2 images"):
        GaussianReference.from_moments(Moments.from_features(np.ones((1, 3))))
    reference = GaussianReference.from_moments(Moments.from_features(correlated(1, 60, 8)))
    with np.errstate(invalid="ignore"):
        broken = Moments.from_features(np.full((5, 8), np.inf))
        with pytest.raises(UserError, match="not finite"):
            reference.distance(broken)
    with pytest.raises(UserError, match="9 dimensions"):
        reference.distance(Moments.from_features(correlated(1, 60, 9)))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 5), st.integers())
def test_distance_is_finite_and_not_negative(n1, n2, d, rank, seed):
    rng = np.random.default_rng(abs(seed))
    basis = rng.normal(size=(rank, d))
    x, y = rng.normal(size=(n1, rank)) @ basis, rng.normal(size=(n2, rank)) @ basis
    value = distance(x, y)
    assert np.isfinite(value)
    assert value >= 0
    assert value == pytest.approx(distance(y, x), abs=1e-6 * (1 + value))


def test_bias_of_few_images():
    """Simulated: 30 sets of 200 draws against their own distribution, in 6 dimensions."""
    rng = np.random.default_rng(0)
    spread = np.array([3, 2, 1, 1, 0.5, 0.1])
    reference = GaussianReference(10**9, np.zeros(6), np.diag(spread**2))
    draws = [Moments.from_features(rng.normal(size=(200, 6)) * spread) for _ in range(300)]
    simulated = np.mean([reference.distance(moments) for moments in draws])
    truth = Moments(2, np.zeros(6), np.diag(spread**2))  # n - 1 = 1: covariance = scatter
    assert frechet_bias(truth, 200) == pytest.approx(simulated, rel=0.1)


# ------------------------------------------------------------------------------- merging


def shard_states(x: np.ndarray, workers: int) -> Moments:
    parts = np.array_split(x, 7)
    with ThreadPoolExecutor(workers) as pool:
        return merge_all(pool.map(Moments.from_features, parts))


def test_merging_in_plan_order_gives_the_same_bits_at_any_number_of_workers():
    x = correlated(1, 3000)
    one, two, four = (shard_states(x, workers) for workers in (1, 2, 4))
    for other in (two, four):
        assert one.total.tobytes() == other.total.tobytes()
        assert one.scatter.tobytes() == other.scatter.tobytes()


def test_merging_equals_a_single_pass():
    x, single = correlated(1, 3000), Moments.from_features(correlated(1, 3000))
    for parts in (2, 4, 37):
        merged = merge_all([Moments.from_features(p) for p in np.array_split(x, parts)])
        assert merged.n == single.n
        np.testing.assert_allclose(merged.total, single.total, rtol=1e-12)
        np.testing.assert_allclose(merged.mean_outer, single.mean_outer, rtol=1e-12)
        np.testing.assert_allclose(merged.covariance, single.covariance, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("parts", [2, 4, 37])
def test_values_of_merged_states_are_those_of_a_single_pass(parts):
    n, spread = 3000, np.linspace(1, 3, 48)
    x, y = (np.random.default_rng(s).normal(size=(n, 48)) * spread + 9 + s / 9 for s in (1, 2))
    reference = GaussianReference.from_moments(Moments.from_features(y))
    unit_reference = bucket_unit_moments(y, keys(n)).total
    rows = np.array_split(np.arange(n), parts)
    moments, unit, scores = (
        merge_all([of(x[r], keys(n)[r], r[0]) for r in rows])
        for of in (
            lambda f, k, _: bucket_moments(f, k),
            lambda f, k, _: bucket_unit_moments(f, k),
            lambda f, k, _: InceptionScoreState.from_logits(f, k, np.sort(keys(n))),
        )
    )
    single, single_unit = bucket_moments(x, keys(n)), bucket_unit_moments(x, keys(n))
    whole = InceptionScoreState.from_logits(x, keys(n), np.sort(keys(n)))
    for merged, direct in (
        (reference.distance(moments.total), reference.distance(single.total)),
        (cmmd(unit.total, unit_reference), cmmd(single_unit.total, unit_reference)),
        (vendi_score(unit.total), vendi_score(single_unit.total)),
        (scores.buckets.total.value, whole.buckets.total.value),
    ):
        assert merged == pytest.approx(direct, rel=1e-12)


@pytest.mark.parametrize("n", [20, 3000])
@pytest.mark.parametrize("condition", [1e4, 1e10, 1e15])
def test_nuclear_norm_is_that_of_a_decomposition(condition, n):
    """Squares of singular values lose half their digits, were the factors not graded."""
    rotation, _ = linalg.qr(np.random.default_rng(7).normal(size=(48, 48)))
    spread = np.logspace(0, -np.log10(condition) / 2, 48)
    first, second = (
        root_of(
            Moments.from_features(
                (np.random.default_rng(s).normal(size=(n, 48)) * spread) @ rotation
            ).covariance
        )
        for s in (1, 2)
    )
    product = first.T @ second
    assert nuclear_norm(product) == pytest.approx(linalg.svdvals(product).sum(), rel=1e-13)


@pytest.mark.parametrize("parts", [2, 4, 37])
@pytest.mark.parametrize("mean", [0, 10])
@pytest.mark.parametrize("condition", [1e4, 1e7, 1e10])
def test_merging_keeps_the_digits_of_ill_conditioned_data(condition, mean, parts):
    """The distance is a difference of traces: here it is a fiftieth of them and less."""
    rotation, _ = linalg.qr(np.random.default_rng(7).normal(size=(48, 48)))
    spread = np.logspace(0, -np.log10(condition) / 2, 48)
    x, y = (
        (np.random.default_rng(s).normal(size=(3000, 48)) * spread * (1 + s / 10)) @ rotation + mean
        for s in (1, 2)
    )
    single = Moments.from_features(x)
    assert np.linalg.cond(single.covariance) > condition / 2
    merged = merge_all([Moments.from_features(p) for p in np.array_split(x, parts)])
    error = np.abs(merged.covariance - single.covariance).max()
    assert error < 1e-14 * np.abs(single.covariance).max()
    reference = GaussianReference.from_moments(Moments.from_features(y))
    assert reference.distance(merged) == pytest.approx(reference.distance(single), rel=1e-12)


def test_groups_merge_key_by_key():
    x, image_keys = correlated(1, 400), keys(400)
    merged = bucket_moments(x[:150], image_keys[:150]).merge(
        bucket_moments(x[150:], image_keys[150:])
    )
    assert list(merged.by_key) == list(range(10))
    assert merged.n == 400
    for bucket, state in merged.by_key.items():
        rows = buckets_of(image_keys) == bucket
        assert state.n == rows.sum()
        np.testing.assert_allclose(state.total, x[rows].astype(np.float64).sum(axis=0))
    np.testing.assert_allclose(
        merged.total.scatter, merged.without(3).merge(merged.by_key[3]).scatter
    )


def test_an_image_keeps_its_bucket_whatever_is_added():
    assert (keys(100) == keys(150)[:100]).all()
    counts = np.bincount(buckets_of(keys(20_000)), minlength=10)
    assert (abs(counts - 2000) < 5 * np.sqrt(2000)).all()


# ----------------------------------------------------------------------------- intervals


def test_jackknife_of_a_mean_is_its_standard_error():
    """For a mean, leaving out equal groups is the textbook error over the group means."""
    values = np.random.default_rng(0).normal(size=(10, 50))
    groups = Groups({i: Moments.from_features(v[:, None]) for i, v in enumerate(values)})
    estimate = jackknife(groups, lambda state: float(state.mean[0]))
    error = values.mean(axis=1).std(ddof=1) / np.sqrt(10)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.extrapolated == pytest.approx(values.mean())
    half = (estimate.interval[1] - estimate.interval[0]) / 2
    assert half == pytest.approx(2.262157 * error)  # Student's t, 9 degrees of freedom


def test_jackknife_removes_a_bias_of_one_over_n():
    """The plug-in variance of 40 draws is 1 - 1/40 on average; extrapolated it is 1."""

    def plug_in(state: Moments) -> float:
        return float(state.scatter[0, 0] / state.n)

    draws = np.random.default_rng(1).normal(size=(3000, 40, 1))
    estimates = [jackknife(bucket_moments(x, keys(40)), plug_in) for x in draws]
    error = np.std([e.value for e in estimates]) / np.sqrt(3000)
    assert np.mean([e.value for e in estimates]) == pytest.approx(1 - 1 / 40, abs=4 * error)
    assert np.mean([e.extrapolated for e in estimates]) == pytest.approx(1, abs=4 * error)
    assert 5 * error < 1 / 40


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Distance to a fixed reference: 60 sets; the truth is the value of very many images."""
    reference = GaussianReference.from_moments(Moments.from_features(correlated(9, 20_000, 6)))
    truth = reference.distance(Moments.from_features(correlated(2, 200_000, 6)))
    hits = 0
    pool = correlated(2, 260_000, 6)[200_000:]
    for part in np.array_split(pool, 60):
        low, high = jackknife(bucket_moments(part, keys(len(part))), reference.distance).interval
        hits += low <= truth <= high
    assert hits >= 51  # 57 expected, standard deviation 1.7


def test_too_few_images_have_no_interval():
    estimate = jackknife(bucket_moments(correlated(1, 15), keys(15)), lambda s: float(s.n))
    assert estimate.interval is None
    assert estimate.extrapolated is None


def infinity(x: np.ndarray, y: np.ndarray) -> dict:
    kept = StoredMoments.of(bucket_moments(y, keys(len(y))))
    return frechet_values(
        bucket_moments(x, keys(len(x))), GaussianReference.from_buckets(kept.buckets)
    )


@pytest.mark.parametrize("other", [False, True])
def test_fd_infinity_does_not_depend_on_the_number_of_real_images(other):
    """60 draws of 200 images against 100 and against 3,000: the truth, and their interval, hold."""
    spread = np.linspace(1, 2, 8)
    shift = 0.3 if other else 0.0
    truth = 8 * shift**2 + shift**2 * (spread**2).sum()
    found: dict[int, list] = {100: [], 3000: []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(200, 8)) * spread * (1 + shift) + shift
        for m, values in found.items():
            values.append(infinity(x, rng.normal(size=(m, 8)) * spread))
    for values in found.values():
        infinities = [v["fd_infinity"] for v in values]
        error = np.std([v["value"] for v in infinities]) / 60**0.5
        assert np.mean([v["value"] for v in infinities]) == pytest.approx(truth, abs=3 * error)
        assert np.mean([v["fd"]["value"] for v in values]) > truth + 5 * error
        assert np.mean([v["interval"][0] <= truth <= v["interval"][1] for v in infinities]) > 0.9


def test_fd_infinity_and_bias_are_refused_with_too_few_images():
    """8 dimensions need 40 images on both sides."""
    x, y = correlated(1, 60, 8), correlated(2, 60, 8)
    assert "fd_infinity" in infinity(x[:40], y[:40])
    for few in (infinity(x[:39], y), infinity(x, y[:39])):
        assert "fd_infinity" not in few
        assert "8 dimensions need 40 on both sides" in few["fd"]["infinity_refused"]
    assert "bias" in infinity(x, y)["fd"]
    assert "bias" not in infinity(x[:39], y)["fd"]


# ----------------------------------------------------------------------- Inception Score


def direct_score(logits: np.ndarray) -> float:
    p = softmax(logits.astype(np.float64), axis=1)
    divergence = p * (log_softmax(logits.astype(np.float64), axis=1) - np.log(p.mean(axis=0)))
    return float(np.exp(divergence.sum(axis=1).mean()))


def test_inception_score_equals_its_formula():
    logits = np.random.default_rng(0).normal(size=(700, 30)).astype(np.float32) * 4
    assert ScoreSums.from_logits(logits).value == pytest.approx(direct_score(logits), rel=1e-12)


def test_inception_score_limits():
    certain = np.where(np.eye(5, dtype=bool), 0.0, -1e4)
    assert ScoreSums.from_logits(np.tile(certain, (20, 1))).value == pytest.approx(5)
    assert ScoreSums.from_logits(np.tile(certain[:1], (20, 1))).value == pytest.approx(1)
    assert ScoreSums.from_logits(np.zeros((20, 5))).value == pytest.approx(1)


@pytest.mark.parametrize("cuts", [[], [1234], [100, 5000, 9000, 9001]])
def test_splits_and_chunks_do_not_depend_on_the_shards(cuts):
    n = 10_123
    logits = np.random.default_rng(0).normal(size=(n, 7)).astype(np.float32)
    bounds = [0, *cuts, n]
    states = [
        InceptionScoreState.from_logits(logits[a:b], keys(n)[a:b], np.sort(keys(n)))
        for a, b in pairwise(bounds)
    ]
    state = merge_all(states)
    logits = logits[np.argsort(keys(n))]
    splits = [direct_score(logits[i * n // 10 : (i + 1) * n // 10]) for i in range(10)]
    chunks = [direct_score(logits[a : a + 5000]) for a in range(0, n, 5000)]
    assert state.n == n
    assert mean_score(state.splits) == pytest.approx((np.mean(splits), np.std(splits)), rel=1e-9)
    assert mean_score(state.chunks)[0] == pytest.approx(np.mean(chunks), rel=1e-12)
    assert state.buckets.total.value == pytest.approx(direct_score(logits), rel=1e-12)
