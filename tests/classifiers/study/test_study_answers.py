"""What a study compares with what, and what it builds for the real images there are."""

from dataclasses import replace
from pathlib import Path

import pytest

from classifiers.study.findings import with_controls
from classifiers.study.plan import require_as_stated
from classifiers.study.releases import missing_releases
from classifiers.study.study_file import Study, load_study
from classifiers.training.task import Task
from release.errors import UserError
from tests.classifiers.study.test_study import STUDY, arm
from tests.sets.shapes import RECIPE, changed, make_images, recipe_toml, write_release


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


def study(folder: Path, per_class: int) -> Study:
    """That of test_study.py with all images of train, stated to be so many."""
    (folder / "tiny.toml").write_text(recipe_toml(RECIPE))
    text = STUDY.format(place=folder).replace("per_class = 10", f"per_class = {per_class}")
    text = text.replace("sizes = [4]", 'sizes = ["all"]').replace("times = [1, 2]", "times = [1]")
    (folder / "study.toml").write_text(text.replace('"fit"', '"train"'))
    return load_study(str(folder / "study.toml"))


@pytest.mark.parametrize(("made", "wanted"), [(7, 8), (8, None)])
def test_as_many_images_are_built_as_there_are_real_ones(
    tmp_path: Path, made: int, wanted: int | None
) -> None:
    """Whatever the study says, within what it may be wrong by."""
    write_release(tmp_path / "shapes-real", {"train": make_images(8, 1), "test": make_images(2, 2)})
    write_release(tmp_path / "shapes-16", {"train": make_images(made, 3)}, kind="synthetic")
    missing = missing_releases(study(tmp_path, 7))
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
    write_release(tmp_path / "shapes-real", {"train": make_images(8, 1), "test": make_images(2, 2)})
    asked = study(tmp_path, 200)
    with pytest.raises(UserError, match=r"real.per_class = 200: .* a class has 8 images"):
        require_as_stated(asked.real, make_images(8, 1).labels)
