"""Features learned without labels, and trainings on some of the classes."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from classifiers.data.batches import Visits, open_batches
from classifiers.data.one_by_one import distort_colour, maybe_blur
from classifiers.data.sources import index_source, load_source, open_source
from classifiers.recipes.recipe import ClassifierRecipe, load_recipe
from classifiers.train_classifier import train_classifier
from classifiers.training.checkpoint import load_classifier, save_classifier
from classifiers.training.experiment import is_finished
from classifiers.training.loop import train
from classifiers.training.self_supervised import SimclrModel, nt_xent
from generation.training.data.order import batch_rows
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import read_result
from tests.sets.shapes import CLASSES, changed, make_images, recipe_toml, write_release

SIMCLR = changed(
    name="views",
    objective="simclr",
    batch=32,
    augmentation={"repeats": 2, "shift": 2, "flip": True},
)


def test_the_loss_is_equation_1() -> None:
    projected = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 5))).float()
    total = 0.0
    for i in range(6):
        alike = [
            float(F.cosine_similarity(projected[i], projected[k], dim=0)) / 0.3 for k in range(6)
        ]
        others = sum(math.exp(alike[k]) for k in range(6) if k != i)
        total -= math.log(math.exp(alike[(i + 3) % 6]) / others) / 6
    assert float(nt_xent(projected, 0.3)) == pytest.approx(total, rel=1e-5)


def test_views_of_one_image_stand_half_a_batch_apart() -> None:
    for step in range(3):
        rows, places = batch_rows(Visits.once(50), 32, 0, step, repeats=2)
        assert rows[:16].tolist() == rows[16:].tolist()
        assert len(set(places.tolist())) == 32
    batch, _ = open_batches(
        SIMCLR, make_images(5, 0), Visits.once(30), 0, torch.device("cpu"), range(1)
    ).batch(0)
    assert not torch.equal(batch[:16], batch[16:])  # each augmented anew


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t for name, t in model.state_dict().items() if not name.startswith("fc.")}


def test_no_label_reaches_the_features_but_the_classifier_learns_them() -> None:
    data = make_images(20, 0)
    shuffled = data.relabelled(np.roll(data.labels, 7), data.class_ids, data.class_names)
    first, other = (train(SIMCLR, images, 0, 6) for images in (data, shuffled))
    assert weights(first).keys() == weights(other).keys()
    assert all(torch.equal(weights(first)[name], t) for name, t in weights(other).items())
    assert not torch.equal(first.fc.weight, other.fc.weight)


def test_it_is_saved_as_any_classifier(tmp_path) -> None:
    model = train(SIMCLR, make_images(10, 0), 0, 2)
    assert not isinstance(model, SimclrModel)
    save_classifier(tmp_path / "views.safetensors", model, SIMCLR, tuple(c.wnid for c in CLASSES))
    found, recipe, _ = load_classifier(tmp_path / "views.safetensors")
    assert recipe == SIMCLR
    assert all(torch.equal(t, found.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"augmentation": {"repeats": 1}}, "augmentation.repeats = 2"),
        ({"batch": 33}, "even number"),
        ({"clip": 1.0}, "carry labels"),
        ({"micro_batch": 16}, "leave micro_batch out"),
        ({"augmentation": {"repeats": 2, "mixup": 0.2}}, "mixes no images"),
        ({"objective": "labels", "simclr": {"temperature": 0.1}}, "is of objective"),
    ],
)
def test_settings_that_do_not_go_together(settings, said) -> None:
    with pytest.raises(ValueError, match=said):
        changed(**{"objective": "simclr", "batch": 32, "augmentation": {"repeats": 2}} | settings)


def test_protocols_of_before_stay() -> None:
    assert not {"objective", "simclr"} & changed().protocol().keys()
    assert "colour_distortion" not in changed().protocol()["augmentation"]
    assert load_recipe("fashion-mnist-simclr").protocol()["objective"] == "simclr"


def test_the_bytes_of_a_saved_recipe_of_before_stay() -> None:
    """Whatever numbers it holds: accept rules know a classifier by its file's hash."""
    later = (
        ',"mixing":{"share":null,"real_last":0.0,"batch_norm":"shared"}',
        ',"objective":"labels","simclr":{"temperature":0.5,"hidden":null,"projection":128}',
        ',"teacher":null',
        ',"colour_distortion":0.0,"blur":0.0',
    )
    for name in ("imagenet-resnetrs50-160", "fashion-mnist-small"):
        whole = load_recipe(name).model_dump_json()
        for text in later:
            assert text in whole
            whole = whole.replace(text, "")
        assert load_recipe(name).record() == whole
    assert ClassifierRecipe.model_validate_json(SIMCLR.record()) == SIMCLR


def test_colours_are_distorted_as_simclr_does() -> None:
    """A grey image's mean moves by up to 0.8 of the strength; four of five keep their colour."""
    random.seed(0)
    image = Image.new("RGB", (8, 8), (200, 60, 20))
    found = np.array([np.asarray(distort_colour(image, 0.5)).mean(axis=(0, 1)) for _ in range(400)])
    grey = (np.ptp(found, axis=1) == 0).mean()
    same = (found == [200, 60, 20]).all(axis=1).mean()
    assert 0.14 < grey < 0.27
    assert 0.1 < same < 0.22  # 0.2 untouched x 0.8 not grey
    flat = Image.new("RGB", (8, 8), (100, 100, 100))
    means = np.array([np.asarray(distort_colour(flat, 0.5)).mean() for _ in range(200)])
    assert 59 <= means.min() < 70
    assert 130 < means.max() <= 141


def test_blur_comes_with_its_probability() -> None:
    random.seed(0)
    image = Image.fromarray(np.eye(16, dtype=np.uint8) * 255).convert("RGB")
    blurred = [maybe_blur(image, 0.5) is not image for _ in range(200)]
    assert 0.4 < np.mean(blurred) < 0.6


# ----------------------------------------------------------------------------- some classes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("some")
    write_release(folder / "real", {"train": make_images(10, 1), "test": make_images(4, 2)})
    return folder


def test_images_of_some_classes_are_labelled_anew(place) -> None:
    source = open_source(f"{place}/real", 16, "train", None, "checks,s1")
    assert source.class_ids == ("s1", "s5")
    assert source.counts().tolist() == [10, 10]
    assert open_source(f"{place}/real:16:fit", 16, classes="checks,s1").counts().sum() == 16
    whole = load_source(open_source(f"{place}/real", 16), 16)
    data, indexed = load_source(source, 16), index_source(source, lambda _: None)
    kept = np.isin(whole.labels, [1, 5])
    assert (data.images == whole.images[kept]).all()
    assert data.labels.tolist() == indexed.labels.tolist() == (whole.labels[kept] == 5).tolist()
    assert data.class_ids == indexed.class_ids == source.class_ids


def test_a_training_on_some_classes_says_which(place, tmp_path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe_toml(SIMCLR))
    train_classifier(
        train=[f"{place}/real"], test=f"{place}/real", out=tmp_path / "some.json",
        recipe=str(recipe), steps=2, classes="left,right,checks", save=tmp_path / "net.safetensors",
    )  # fmt: skip
    result = read_result(tmp_path / "some.json")
    assert result.values["classifier_sha256"] == sha256_file(tmp_path / "net.safetensors")
    assert is_finished(tmp_path / "some.json", tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").write_bytes(b"of another training")
    assert not is_finished(tmp_path / "some.json", tmp_path / "net.safetensors")
    assert result.subject["train"][0]["classes"] == ["s0", "s1", "s5"]
    assert result.reference["n"] == 12
    assert [row["wnid"] for row in result.values["per_class"]] == ["s0", "s1", "s5"]


def test_one_class_and_unknown_ones_are_refused(place) -> None:
    with pytest.raises(UserError, match="two classes or more"):
        open_source(f"{place}/real", 16, classes="left")
    with pytest.raises(UserError, match="class 'lefft'"):
        open_source(f"{place}/real", 16, classes="lefft,right")
