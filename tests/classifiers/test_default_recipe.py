"""Which recipe train-classifier takes where none is named, and what a grey one loses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classifiers.data.sources import open_source
from classifiers.recipes.recipe import load_recipe
from classifiers.train_classifier import train_classifier
from classifiers.training.default_recipe import default_recipe, in_colour, lost_colour
from release.errors import UserError
from release.layout.image_sets import LabelledImages
from tests.sets.shapes import make_images, write_release


def coloured(data: LabelledImages) -> LabelledImages:
    """The same patterns, the last image in red: all others have equal channels."""
    images = data.images.copy()
    images[-1, ..., 1:] //= 2
    return replace(data, images=images)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: grey and colour images, in configurations of the sizes that the name says."""
    folder, splits = tmp_path_factory.mktemp("releases"), {"train": 1, "test": 2}
    found = {}
    for name in ("grey-16-32", "grey-32-64", "grey-16", "colour-32-64", "colour-32", "colour-64"):
        data = {split: make_images(2, seed) for split, seed in splits.items()}
        if name.startswith("colour"):
            data = {split: coloured(images) for split, images in data.items()}
        configs = tuple(name.split("-")[1:])
        found[name] = write_release(folder / name, data, configs=configs)
    return found


@pytest.mark.parametrize(
    ("train", "test", "wanted"),
    [
        ("grey-16-32", "grey-16-32", "fashion-mnist-small"),
        ("grey-32-64", "grey-32-64", "fashion-mnist-small"),
        ("colour-32-64", "colour-32-64", "small-resnet-64"),
        ("colour-32", "colour-32-64", "small-resnet-32"),
        ("colour-64", "colour-32-64", "small-resnet-64"),
        ("colour-32-64:32", "colour-32-64", "small-resnet-32"),
        ("colour-32-64:32:train", "colour-32-64:32:test", "small-resnet-32"),
        ("colour-32", "grey-32-64", "fashion-mnist-small"),  # what is tested on decides
    ],
)
def test_the_default_recipe_follows_colour_and_size(
    releases: dict[str, Path], train: str, test: str, wanted: str
) -> None:
    specs = [
        f"{releases[spec.partition(':')[0]]}{''.join(spec.partition(':')[1:])}"
        for spec in (train, test)
    ]
    name, reason = default_recipe([specs[0]], specs[1])
    assert name == wanted
    assert ("in colour" in reason) == ("resnet" in wanted)
    assert f"{load_recipe(name).resolution} px" in reason


def test_sizes_that_no_default_recipe_has_are_told(releases: dict[str, Path]) -> None:
    grey = str(releases["grey-16"])
    with pytest.raises(UserError, match=r"unknown configuration .* '32'; known: 16"):
        train_classifier(train=[grey], test=grey, out=Path("r.json"))


class ReadingError(Exception):
    """Images would be read now."""


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training ends where it would read its images."""

    def stop(*_: object) -> None:
        raise ReadingError

    monkeypatch.setattr("classifiers.training.task.read_training", stop)


@pytest.mark.usefixtures("unread")
def test_the_recipe_taken_is_said_and_the_colour_lost(
    releases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = []
    for release, recipe in (
        ("colour-32", None),
        ("colour-32", "fashion-mnist-small"),
        ("colour-32", "small-vit-32"),
        ("grey-16-32", "fashion-mnist-small"),
    ):
        path = str(releases[release])
        task = {"train": [path], "test": path, "recipe": recipe, "as_json": True}
        with pytest.raises(ReadingError):
            train_classifier(out=tmp_path / "r.json", **task)
        said.append(capsys.readouterr().err)
    assert said[0] == (
        "recipe small-resnet-32: the test images are in colour, at 32 px; --recipe takes another\n"
    )
    assert said[1].startswith("warning: the images of ")
    assert "are in colour, and recipe fashion-mnist-small turns them grey" in said[1]
    assert said[2:] == ["", ""]


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("instructions", ["AVX2", "AVX512"])
def test_a_cpu_that_emulates_bfloat16_is_told_of(
    instructions: str,
    releases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: instructions)
    path = str(releases["colour-32"])
    for precision in ("bfloat16", "float32"):
        with pytest.raises(ReadingError):
            train_classifier(
                train=[path],
                test=path,
                out=tmp_path / "r.json",
                recipe="small-resnet-32",
                changes=[f"precision={precision}"],
                as_json=True,
            )
        warned = precision == "bfloat16" and instructions == "AVX2"
        found = capsys.readouterr().err
        assert found.count("which this CPU emulates, many times slower") == warned
        assert ("--set precision=float32" in found) == warned


def test_one_colour_image_is_colour_and_a_broken_one_is_left_to_the_reading(tmp_path: Path) -> None:
    data = make_images(1, 0)
    source = open_source(str(write_release(tmp_path / "r", {"train": coloured(data)})), 16)
    assert in_colour(source)
    encoded = {"train": [b"broken"] * len(data)}
    broken = write_release(tmp_path / "b", {"train": data}, encoded=encoded)
    assert not in_colour(open_source(str(broken), 16))
    assert lost_colour(load_recipe("small-resnet-32"), source) is None
    assert np.array_equal(data.images[..., 0], data.images[..., 2])
