"""Copies, label agreement, scores of single classes: against direct computation."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from classifiers.recipes.recipe import ClassifierRecipe
from classifiers.training.checkpoint import load_classifier, save_classifier
from classifiers.training.predictions import predict
from generation.networks.timm_classifier import build_model
from metrics.features.extractors import load_extractor
from metrics.features.mergeable import merge_all, sampling_keys
from metrics.features.release_features import FeatureBlock
from metrics.states import copies
from metrics.states.agreement import AgreementCounts, agreement_values, logit_columns
from metrics.states.copies import copy_values, nearest_images
from metrics.states.frechet import GaussianReference, Moments
from metrics.states.kernel_distance import kid
from metrics.states.per_class import ClassState, class_values
from metrics.states.sample import Sample
from release.errors import UserError
from release.layout.image_sets import LabelledImages


def clouds(seed: int, n: int, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def keys(prefix: str, n: int) -> np.ndarray:
    return sampling_keys([f"{prefix}{i}" for i in range(n)])


# ------------------------------------------------------------------------------- copies


def blocks(features: np.ndarray, parts: int) -> list[FeatureBlock]:
    none = np.zeros((len(features), 0), np.float32)
    names = keys("train", len(features))
    rows = np.array_split(np.arange(len(features)), parts)
    return [
        FeatureBlock(names[r], np.zeros(len(r), int), features[r], none[r], none[r]) for r in rows
    ]


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_nearest_images_are_the_nearest(parts):
    train, images = clouds(1, 500), clouds(2, 60)
    sample = Sample.of(keys("image", 60), images, np.zeros(60, int))
    found = nearest_images(sample, blocks(train, parts))
    distances = cdist(sample.features, train)
    assert found.distances == pytest.approx(distances.min(axis=1), rel=1e-5)
    assert (found.keys == keys("train", 500)[distances.argmin(axis=1)]).all()


def test_nearest_images_in_blocks_are_the_same_bits(monkeypatch):
    train, images = clouds(1, 500), clouds(2, 60)
    sample = Sample.of(keys("image", 60), images, np.zeros(60, int))
    whole = nearest_images(sample, blocks(train, 1))
    monkeypatch.setattr(copies, "BLOCK", 17)
    blocked = nearest_images(sample, blocks(train, 3))
    assert (blocked.distances == whole.distances).all()
    assert (blocked.keys == whole.keys).all()


def test_copied_images_are_found():
    """30 of 300 images repeat training images, almost: they and 1% of the others are too near."""
    train = clouds(1, 2000)
    images = np.concatenate([train[:30] + 1e-4, clouds(2, 270)])
    sample = Sample.of(keys("image", 300), images, np.zeros(300, int))
    held_out = Sample.of(keys("test", 1000), clouds(3, 1000), np.zeros(1000, int))
    nearest, calibration = (nearest_images(s, blocks(train, 2)) for s in (sample, held_out))
    values = copy_values(sample, nearest, calibration)
    assert 0.1 <= values["copies"]["value"] < 0.13
    assert {p["nearest"] for p in values["nearest"]["pairs"]} <= set(keys("train", 30).tolist())
    honest = copy_values(held_out, calibration, calibration)
    assert honest["copies"]["value"] == pytest.approx(0.01)
    assert "copies" not in copy_values(sample, nearest, None)


# ---------------------------------------------------------------------------- agreement


def test_agreement_of_known_logits():
    labels = np.array([0, 1, 2, 2, 5])
    columns = np.array([6, 5, 4, 3, 2, 1, 0])  # label 0 is the last logit
    logits = np.zeros((5, 7), np.float32)
    logits[range(5), [6, 5, 0, 4, 3]] = 9  # right, right, wrong, right, wrong
    whole = AgreementCounts.from_logits(logits, labels, columns)
    parts = [
        AgreementCounts.from_logits(logits[i:j], labels[i:j], columns) for i, j in ((0, 2), (2, 5))
    ]
    assert (merge_all(parts).counts == whole.counts).all()
    values = agreement_values(whole)
    assert values["agreement"]["value"] == 3 / 5
    assert values["agreement"]["n"] == 5
    assert values["agreement_top5"]["value"] == 1
    rows = {row["label"]: (row["value"], row["n"]) for row in values["agreement"]["per_class"]}
    assert rows == {0: (1, 1), 1: (1, 1), 2: (0.5, 2), 5: (0, 1)}
    assert logit_columns(("a", "b"), ["b", "a"]).tolist() == [1, 0]
    assert logit_columns(("a", "b"), ["c"]) is None
    assert logit_columns(None, ["c"]) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_classifier_is_an_extractor(tmp_path, channels):
    recipe = ClassifierRecipe(
        name="tiny",
        description="",
        model="resnet10t",
        resolution=32,
        channels=channels,
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        epochs=1,
        batch=8,
        optimizer="sgd",
        learning_rate=0.1,
    )
    torch.manual_seed(0)
    model = build_model(recipe, 3).eval()
    path = tmp_path / "tiny.safetensors"
    save_classifier(path, model, recipe, ("a", "b", "c"))
    loaded, again, class_ids = load_classifier(path)
    assert (again, class_ids) == (recipe, ("a", "b", "c"))
    grey = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 1), dtype=np.uint8)
    images = grey.repeat(3, axis=3)
    data = LabelledImages(images, np.arange(9) % 3, tuple("123456789"), class_ids, class_ids)
    extractor = load_extractor(f"classifier@{path}", device="cpu", batch=9)
    assert extractor.classes == class_ids
    found = extractor.extract(images)
    assert found.features.shape == (9, 512)
    assert (found.logits.argmax(axis=1) == predict(loaded, recipe, data).top[:, 0]).all()


def test_other_files_are_no_classifiers(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="not a classifier that this project saved"):
        load_extractor(f"classifier@{path}")
    with pytest.raises(UserError, match="give the file"):
        load_extractor("classifier")


# ---------------------------------------------------------------------------- per class


def class_state(features: np.ndarray, labels: np.ndarray, prefix: str, parts: int) -> ClassState:
    per_class, names = np.bincount(labels, minlength=3), keys(prefix, len(labels))
    rows = np.array_split(np.arange(len(labels)), parts)
    return merge_all([ClassState.of(features[r], names[r], labels[r], per_class) for r in rows])


@pytest.mark.parametrize("parts", [1, 7])
def test_scores_of_single_classes(parts):
    """Class 0 has images enough for a distance in 4 dimensions, class 1 too few, 2 only one."""
    labels = np.array([0] * 120 + [1] * 19 + [2])
    images, real = clouds(1, 140), clouds(2, 140) + 0.5 * labels[:, None]
    reference = class_state(real, labels, "real", parts).total
    values = class_values(class_state(images, labels, "image", parts), reference)
    first, second = values["class_kid"]["per_class"]
    for label, row in enumerate((first, second)):
        x, y = images[labels == label], real[labels == label]
        assert row["value"] == pytest.approx(kid(x, y), rel=1e-9)
        assert row["interval"][0] < row["value"] < row["interval"][1]
    target = GaussianReference.from_moments(Moments.from_features(real[:120]))
    direct = target.distance(Moments.from_features(images[:120]))
    assert first["fd"]["value"] == pytest.approx(direct, rel=1e-9)
    assert second["fd_refused"] == ("19 images against 19, but 4 dimensions need 20 on both sides")
    assert values["class_fd"]["value"] == pytest.approx(direct, rel=1e-9)
    assert values["class_kid"]["classes"] == 2
    assert values["class_kid"]["value"] == pytest.approx((first["value"] + second["value"]) / 2)
