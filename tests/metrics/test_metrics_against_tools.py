"""The metrics on the same features as the tools they are known from.

torch-fidelity, pytorch-fid, clean-fid, torchmetrics and prdc compute on the same arrays: random
ones, and those of EfficientNet-Lite0 on Fashion-MNIST. Where a tool works in float32, the tolerance
is its own precision and is stated.
"""

import io
import warnings

import numpy as np
import prdc
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from metrics.features.extractors import Features, load_extractor
from metrics.features.mergeable import merge_all, sampling_keys
from metrics.scoring.metric_list import kid_values
from metrics.states import manifold
from metrics.states.diversity import vendi_score
from metrics.states.frechet import GaussianReference, Moments
from metrics.states.inception_score import InceptionScoreState, mean_score
from metrics.states.kernel_distance import (
    KID_BLOCK,
    bucket_unit_moments,
    cmmd,
    kid,
    kid_blocks,
    kid_with_error,
)
from metrics.states.manifold import manifold_scores
from metrics.states.sample import Sample
from release.errors import UserError
from release.images.views import make_view
from release.real_sources.opening import open_source
from release.real_sources.source import RealSplit


def features(seed: int, n: int, d: int = 64) -> np.ndarray:
    """float32[n,d], none negative and many zero, as pooled ReLU features are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) * np.logspace(0, -1, d)
    return (rng.normal(size=(n, d)) @ mixing + 0.1 * seed).clip(min=0).astype(np.float32)


X, Y = features(1, 900), features(2, 800)
WIDTH = 128  # channels that a distance is compared on: sqrtm warns of a singular matrix beyond


@pytest.fixture(scope="module", params=["random", "real"])
def sets(request: pytest.FixtureRequest) -> tuple[Features, Features]:
    """Features of 900 and of 800 images, with class logits."""
    if request.param == "random":
        none = np.zeros((900, 0), np.float32)
        logits = np.random.default_rng(0).normal(size=(900, 50)).astype(np.float32) * 3
        return Features(X, logits, none), Features(Y, logits[:800], none[:800])
    extractor = load_extractor("efficientnet-lite0-32", device="cpu", batch=100)
    splits = open_source("fashion-mnist").splits
    return (
        extractor.extract(images_of(splits["test"], 900)),
        extractor.extract(images_of(splits["train"], 800)),
    )


def images_of(split: RealSplit, n: int) -> np.ndarray:
    """uint8[n,32,32,3]: its first ones."""
    found = []
    for i in range(n):
        with Image.open(io.BytesIO(split.read(i))) as image:
            found.append(make_view(image.convert("RGB"), 32, "pad"))
    return np.stack(found)


def widest(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (at most WIDTH) channels that vary most."""
    channels = np.argsort(-np.concatenate([x, y]).var(axis=0))[:WIDTH]
    return x[:, channels], y[:, channels]


def distance(x: np.ndarray, y: np.ndarray) -> float:
    target = GaussianReference.from_moments(Moments.from_features(y))
    return target.distance(Moments.from_features(x))


# --------------------------------------------------------------------------- distance


def test_frechet_distance_of_torch_fidelity(sets):
    """It takes the mean in float32: 1e-6."""
    x, y = widest(sets[0].features, sets[1].features)
    ours, theirs = (fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y))
    value = fid_statistics_to_metric(ours, theirs, False)["frechet_inception_distance"]
    assert distance(x, y) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("tool", ["pytorch-fid", "clean-fid"])
def test_frechet_distance_of_the_sqrtm_tools(tool, sets, monkeypatch):
    """Both call scipy's sqrtm(disp=False), gone since scipy 1.18; its answer is (root, error)."""
    if tool == "pytorch-fid":
        from pytorch_fid import fid_score as module

        calculate = module.calculate_frechet_distance
    else:
        from cleanfid import fid as module

        calculate = module.frechet_distance
    plain = module.linalg.sqrtm
    monkeypatch.setattr(module.linalg, "sqrtm", lambda a, disp=True: (plain(a), 0.0))  # noqa: ARG005
    x, y = (f.astype(np.float64) for f in widest(sets[0].features, sets[1].features))
    statistics = x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
    assert distance(x, y) == pytest.approx(calculate(*statistics), rel=1e-8)


def test_frechet_distance_of_torchmetrics(sets):
    from torchmetrics.image.fid import _compute_fid

    ours = widest(sets[0].features, sets[1].features)
    x, y = (torch.from_numpy(f).double() for f in ours)
    value = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert distance(*ours) == pytest.approx(float(value), rel=1e-8)


# -------------------------------------------------------------------- Inception Score


def test_inception_score_of_torch_fidelity(sets):
    logits = sets[0].logits[:893]  # splits of 89 and of 90
    keys = np.sort(sampling_keys([str(i) for i in range(893)]))
    state = InceptionScoreState.from_logits(logits, keys, keys)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    mean, std = mean_score(state.splits)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-9)


# -------------------------------------------------------------------------------- KID


def test_kid_of_torch_fidelity_on_the_same_blocks(sets):
    """One block of all images: its random choice is then only an order."""
    options = {"kid_subsets": 1, "kid_subset_size": 800, "kid_kernel": "poly", "rng_seed": 0}
    poly = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    ours = [s.features[:800] for s in sets]
    x, y = (torch.from_numpy(f).double() for f in ours)
    theirs = kid_features_to_metric(x, y, **options, **poly, verbose=False)
    assert kid(*ours) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_kid_states_the_images_of_its_blocks(sets):
    """Of several blocks whole ones alone are read."""
    for n, counted in ((KID_BLOCK - 1, KID_BLOCK - 1), (2 * KID_BLOCK + 9, 2 * KID_BLOCK)):
        sides = [
            Sample(
                keys=np.arange(n, dtype=np.uint64),
                features=np.resize(s.features[:, :8], (n, 8)),
                labels=np.zeros(n, np.int64),
                most=n,
            )
            for s in sets
        ]
        assert kid_values(*sides)["kid"]["n"] == counted


def test_kid_of_torchmetrics(sets):
    from torchmetrics.image.kid import poly_mmd

    ours = [s.features[:800] for s in sets]
    theirs = poly_mmd(*(torch.from_numpy(f).double() for f in ours))
    assert kid(*ours) == pytest.approx(float(theirs), rel=1e-9)


def test_kid_is_zero_on_average_for_one_distribution():
    pool = features(3, 4000)
    blocks = kid_blocks(pool[:2000], pool[2000:], 100)
    assert len(blocks) == 20
    assert abs(blocks.mean()) < 4 * blocks.std(ddof=1) / np.sqrt(20)
    assert blocks.min() < 0
    apart = kid_blocks(pool[:2000], features(9, 2000), 100)
    assert apart.mean() > 4 * blocks.std(ddof=1)


def test_error_of_one_block_is_that_of_leaving_out_each_image():
    x, y = X[:12].astype(np.float64), Y[:9].astype(np.float64)
    value, error = kid_with_error(x, y)
    without_x = np.array([kid(np.delete(x, i, axis=0), y) for i in range(12)])
    without_y = np.array([kid(x, np.delete(y, i, axis=0)) for i in range(9)])
    variance = 11 * without_x.var() + 8 * without_y.var()
    assert value == pytest.approx(kid(x, y))
    assert error == pytest.approx(variance**0.5)
    with pytest.raises(UserError, match="at least 2 images"):
        kid(x[:1], y)


def test_small_sets_are_one_block():
    assert kid_blocks(X[:30], Y[:20], 1000) == pytest.approx(kid(X[:20], Y[:20]))


# ------------------------------------------------------------- precision … coverage


def test_precision_and_recall_of_torch_fidelity(sets):
    ours = manifold_scores(*(s.features for s in sets))
    x, y = (torch.from_numpy(s.features) for s in sets)
    options = {"prc_neighborhood": 3, "prc_batch_size": 300, "save_cpu_ram": False}
    theirs = prc_features_to_metric(x, y, **options, verbose=False)
    assert ours.precision.value == pytest.approx(theirs["precision"], abs=1e-7)
    assert ours.recall.value == pytest.approx(theirs["recall"], abs=1e-7)


@pytest.mark.parametrize(
    ("k", "names"), [(3, ["precision", "recall"]), (5, ["density", "coverage"])]
)
def test_scores_of_prdc(k, names, sets, capsys):
    x, y = (s.features for s in sets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn on its n_jobs
        theirs = prdc.compute_prdc(y.astype(np.float64), x.astype(np.float64), nearest_k=k)
    capsys.readouterr()
    ours = manifold_scores(x, y)
    for name in names:
        assert theirs[name] > 0.02
        assert getattr(ours, name).value == pytest.approx(theirs[name], rel=1e-12)


@pytest.mark.parametrize("block", [37, 400])
def test_distances_in_blocks_change_no_bit(block, monkeypatch):
    whole = manifold_scores(X, Y)
    monkeypatch.setattr(manifold, "BLOCK", block)
    blocked = manifold_scores(X, Y)
    for name, score in vars(whole).items():
        assert (getattr(blocked, name).per_image == score.per_image).all(), name
        assert getattr(blocked, name).error == pytest.approx(score.error, rel=1e-12)


def test_manifold_scores_of_identical_and_distant_sets():
    same, apart = manifold_scores(X[:50], X[:50]), manifold_scores(X[:50], X[:60] + 1e4)
    assert all(score.value == 1 for score in (same.precision, same.recall, same.coverage))
    assert all(score.value == 0 for score in vars(apart).values())
    tiny = manifold_scores(X[:2], Y[:1])
    assert all(np.isfinite([score.value, score.error]).all() for score in vars(tiny).values())


def test_intervals_of_manifold_scores_cover():
    """Gaussians, the generated ones narrower: 150 pairs of 120 images a side, in 4 dimensions."""
    rng = np.random.default_rng(0)
    draws = [
        manifold_scores(rng.normal(size=(120, 4)) * 0.8 + 0.25, rng.normal(size=(120, 4)))
        for _ in range(150)
    ]
    for name in vars(draws[0]):
        values, errors = (
            np.array([getattr(getattr(d, name), part) for d in draws])
            for part in ("value", "error")
        )
        assert np.mean(abs(values - values.mean()) < 1.98 * errors) > 0.9, name


# -------------------------------------------------------------------------- CMMD, Vendi


def unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def unit_moments(x: np.ndarray) -> Moments:
    keys = sampling_keys([str(i) for i in range(len(x))])
    return bucket_unit_moments(x, keys).total


def direct_cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """As published: sigma = 10, times 1000, means that include the diagonal."""
    x, y = unit(x), unit(y)

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-cdist(a, b, "sqeuclidean") / 200).mean())

    return 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


def clip_like(seed: int, n: int) -> np.ndarray:
    """float64[n,256]: a common direction, so that cosines lie around 0.6."""
    common = np.random.default_rng(5).normal(size=256) * 1.2
    spread = np.linspace(1, 1.2, 256) ** seed
    return np.random.default_rng(seed).normal(size=(n, 256)) * spread + common


@pytest.mark.parametrize(
    ("x", "y", "tolerance"),
    [
        (X, Y, 1e-5),
        (X, X[:300], 1e-5),
        (clip_like(1, 700), clip_like(2, 600), 1e-5),
        (clip_like(1, 50), clip_like(1, 600) + 0.5, 1e-5),
        (np.eye(20), -np.eye(20)[:7], 2e-5),
    ],
)
def test_cmmd_equals_its_kernel_form(x, y, tolerance):
    ours = cmmd(unit_moments(x), unit_moments(y))
    assert ours == pytest.approx(direct_cmmd(x, y), rel=tolerance)


def test_cmmd_equals_its_kernel_form_on_real_features(sets):
    x, y = (s.features for s in sets)
    assert cmmd(unit_moments(x), unit_moments(y)) == pytest.approx(direct_cmmd(x, y), rel=1e-5)


def test_cmmd_of_one_set_is_zero():
    assert cmmd(unit_moments(X), unit_moments(X)) == 0


def test_vendi_score_equals_its_kernel_form():
    eigenvalues = np.linalg.eigvalsh(unit(X) @ unit(X).T / len(X)).clip(min=1e-300)
    direct = np.exp(-(eigenvalues * np.log(eigenvalues)).sum())
    assert vendi_score(unit_moments(X)) == pytest.approx(direct, rel=1e-6)


def test_vendi_score_counts_different_images():
    assert vendi_score(unit_moments(np.eye(7))) == pytest.approx(7)
    assert vendi_score(unit_moments(np.tile(np.eye(7)[:3], (10, 1)))) == pytest.approx(3)
    assert vendi_score(unit_moments(np.ones((20, 7)))) == pytest.approx(1)


# -------------------------------------------------------------------------------- sample


def test_the_sample_does_not_depend_on_the_shards():
    keys, labels = sampling_keys([str(i) for i in range(900)]), np.arange(900)
    whole = Sample.of(keys, X, labels, 300)
    assert whole.n == 300
    assert (np.sort(keys)[:300] == whole.keys).all()
    for parts in (2, 5, 90):
        pieces = np.array_split(np.arange(900), parts)
        merged = merge_all([Sample.of(keys[p], X[p], labels[p], 300) for p in pieces])
        assert (merged.labels == whole.labels).all()
        assert (merged.features == whole.features).all()
