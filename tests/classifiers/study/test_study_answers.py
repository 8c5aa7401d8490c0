"""What a study compares with what, and what it builds for the real images there are."""

from dataclasses import replace
from pathlib import Path

import pytest

from classifiers.study.findings import with_controls
from classifiers.study.plan import require_as_stated
from classifiers.study.releases import missing_releases
from classifiers.study.study_file import load_study
from classifiers.training.task import Task
from release.errors import UserError
from tests.classifiers.study.test_study import arm
from tests.sets.shapes import RECIPE, changed, make_images, recipe_toml, write_release

STUDY = """
name = "tiny"
description = "of real images that are others than stated"
sizes = ["all"]
seeds = [0]

[real]
source = "nowhere"
release = "{folder}/real"
config = "16"
test_split = "test"
classes = 6
per_class = {per_class}

[[generated]]
name = "g"
release = "{folder}/generated"
config = "16"

[[model]]
recipe = "{folder}/tiny.toml"

[[arm]]
kind = "real"

[[arm]]
kind = "real+generated"
"""


def test_a_control_of_fewer_updates_is_no_control() -> None:
    ends = [0.0, 0.1]
    rows = [
        arm("real+generated", 1, 0.1, ends),
        arm("real-repeated", 1, 0.1, ends),
        arm("real-repeated", 1, 0.1, ends, arm="real-repeated-x1-equal-steps", budget="steps"),
    ]
    assert [(one.arm, other.arm) for one, other in with_controls(rows)] == [
        ("real+generated", "real-repeated")
    ]


def study(folder: Path, per_class: float) -> str:
    (folder / "tiny.toml").write_text(recipe_toml(RECIPE))
    (folder / "study.toml").write_text(STUDY.format(folder=folder, per_class=per_class))
    return str(folder / "study.toml")


@pytest.mark.parametrize(("made", "wanted"), [(7, 8), (8, None)])
def test_as_many_images_are_built_as_there_are_real_ones(
    tmp_path: Path, made: int, wanted: int | None
) -> None:
    """Whatever the study says, within what it may be wrong by."""
    write_release(tmp_path / "real", {"train": make_images(8, 1), "test": make_images(2, 2)})
    write_release(tmp_path / "generated", {"train": make_images(made, 3)}, kind="synthetic")
    missing = missing_releases(load_study(study(tmp_path, 7)))
    assert [one.wanted for one in missing] == ([] if wanted is None else [wanted])


def test_a_source_without_the_classes_that_are_asked_for_is_one_line(tmp_path: Path) -> None:
    real = {"train": make_images(4, 1), "test": make_images(4, 2)}
    write_release(tmp_path / "real", real)
    images = make_images(4, 3)
    kept = images.labels >= 2
    some = replace(
        images,
        images=images.images[kept],
        labels=images.labels[kept],
        image_ids=tuple(i for i, k in zip(images.image_ids, kept, strict=True) if k),
    )
    write_release(tmp_path / "made", {"train": some}, kind="synthetic")
    sources = (str(tmp_path / "real"), str(tmp_path / "made"))
    task = Task(changed(), sources, str(tmp_path / "real"), classes="s0,s1")
    with pytest.raises(UserError, match=r"made.* holds no image of the classes"):
        task.measurement()


def test_a_study_that_says_twice_as_many_images_is_refused(tmp_path: Path) -> None:
    write_release(tmp_path / "real", {"train": make_images(8, 1), "test": make_images(2, 2)})
    asked = load_study(study(tmp_path, 200))
    with pytest.raises(UserError, match=r"real.per_class = 200: .* a class has 8 images"):
        require_as_stated(asked.real, make_images(8, 1).labels)
