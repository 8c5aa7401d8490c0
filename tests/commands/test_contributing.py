"""CONTRIBUTING.md's four ways to add something: a toy of each, added as it says, and used."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.build_dataset import build_dataset
from cards.leaderboard import leaderboard
from classifiers.train_classifier import train_classifier
from generation.families import MODULES
from metrics.score_release import score_release
from metrics.scoring.metric_list import METRICS, STATE_KINDS
from release.layout.image_sets import load_images
from release.results.result import read_result
from tests.commands import toys
from tests.conftest import ROOT
from tests.in_process import InProcess
from tests.sets.miniature import CLASSIFIER

CLASSES = ("one", "two", "three")
RECIPE = """
name = "stripes"
description = "As many stripes as the label says."
classes = "stripes.csv"
dataset = "pictures"
regime = "B"
license = "mit"

[shard]
classes = 3
indices = 4

[[stage]]
resolution = 16
generator = "stripes"
checkpoint = "none"
batch = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all four work on: the class list, and photographs in a folder for each class."""
    folder = tmp_path_factory.mktemp("toys")
    rows = [(label, name, name, name) for label, name in enumerate(CLASSES)]
    with (folder / "stripes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "wnid", "name", "prompt"), *rows])
    chance = np.random.default_rng(3)
    for split in ("train", "test"):
        for label, name in enumerate(CLASSES):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(4):
                pixels = chance.integers(0, 60, (20, 20, 3), dtype=np.uint8)
                pixels[:, : 2 * (label + 1) : 2] += 150
                Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


@pytest.fixture
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that folder, with the family's line in the registry and jobs in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(MODULES, "stripes", "tests.commands.toys")
    InProcess(monkeypatch)


@pytest.fixture
def made(_there: None, folder: Path) -> Path:
    """A release of the new family: CONTRIBUTING's "Add a generator"."""
    (folder / "stripes.toml").write_text(RECIPE)
    if not (folder / "made").exists():
        assert build_dataset(recipe="stripes.toml", per_class=4, out="made") == 0
    return folder / "made"


@pytest.fixture
def real(_there: None, folder: Path) -> Path:
    """The folder's pictures as a release: CONTRIBUTING's "Add a data set"."""
    if not (folder / "real").exists():
        joined = {"views": "16", "classes_from": "stripes.csv"}
        assert build_dataset(real="pictures", out="real", **joined) == 0
    return folder / "real"


def test_a_generator(made: Path) -> None:
    images = load_images(made, "16", "train")
    assert np.bincount(images.labels).tolist() == [4, 4, 4]
    stripes = (images.images[:, 0].max(axis=2) > 0).sum(axis=1)
    assert (stripes == images.labels + 1).all()


def test_a_data_set(real: Path) -> None:
    images = load_images(real, "16", "train")
    assert (images.class_ids, len(images)) == (CLASSES, 12)


@pytest.mark.usefixtures("real")
def test_a_classifier_recipe(folder: Path) -> None:
    (folder / "mine.toml").write_text(CLASSIFIER)
    train_classifier(["real:16"], "real:16", Path("results/real.json"), recipe="mine.toml")
    result = read_result(folder / "results/real.json")
    assert result.protocol["model"] == "test_resnet"
    assert result.values["top1"]["n"] == 12


def test_a_metric(made: Path, real: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATE_KINDS, "lengths", toys.LENGTHS)
    monkeypatch.setitem(METRICS, "length", toys.LENGTH)
    score_release(
        [f"{made}:16"], real=str(real), out=folder / "scores", metrics="length", workers=1
    )
    (path,) = (folder / "scores").glob("*.json")
    assert read_result(path).values["length"]["n"] == 12
    leaderboard(folder / "scores", out=folder / "board")
    page = (folder / "board/index.html").read_text()
    assert "Length of features" in page


def test_the_document_names_what_is_there() -> None:
    """Every file and folder that CONTRIBUTING.md points to."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(
        r"`((?:release|generation|builder|classifiers|metrics|cards|tests)/[^`*]*)`", text
    )
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
