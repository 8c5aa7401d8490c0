"""Paths mean what they mean where the command runs, wherever workers run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.build_dataset import build_dataset
from builder.builds.build import plan_build
from builder.planning.recipe import load_recipe
from builder.release.command import extend, repair
from release.classes.class_list import load_classes
from release.errors import UserError
from release.files.storage import absolute_if_folder
from tests.conftest import release_bytes
from tests.in_process import InProcess


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InProcess:
    """A folder of colour images `rel` in the working directory; workers run in another one."""
    for split, count in (("train", 12), ("test", 3)):
        for label, name in enumerate(("apple", "pear")):
            folder = tmp_path / "rel" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((9, 12, 3), (20 * i, 90 * label, 200), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    own = InProcess(monkeypatch)
    own.where = tmp_path / "elsewhere"
    return own


def import_images(name: str) -> int:
    return build_dataset(real=name, out="release", views="8", crop="center-crop", as_json=True)


def test_a_relative_folder_is_one_for_workers_too_however_it_is_written(
    here: InProcess, tmp_path: Path
):
    assert import_images("rel") == 0
    before = release_bytes(tmp_path / "release")
    made = len(here.made)
    assert made == 4  # original and 8 px, train and test
    for same in ("rel/", "./rel", str(tmp_path / "rel")):
        assert import_images(same) == 0
    assert len(here.made) == made
    assert release_bytes(tmp_path / "release") == before


def test_the_same_images_at_another_place_are_the_same(here: InProcess, tmp_path: Path):
    assert import_images("rel") == 0
    made = len(here.made)
    (tmp_path / "rel").rename(tmp_path / "moved")
    assert import_images("moved") == 0
    assert len(here.made) == made


def test_a_folder_that_is_gone_is_one_line(here: InProcess, tmp_path: Path):
    assert here.where
    with pytest.raises(UserError, match="not at hand"):
        import_images(str(tmp_path / "gone"))


def test_what_is_no_folder_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rel").mkdir()
    for name in ("fashion-mnist", "org/name", "org/name:config"):
        assert absolute_if_folder(name) == name
    assert absolute_if_folder("rel:config") == f"{tmp_path}/rel:config"


def test_checkpoints_of_a_recipe_are_absolute_for_workers(
    stand_in_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(str(stand_in_recipe))
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.chain(None), classes, 2, Path("release"))
    assert {job.checkpoint.parent for job in plan.jobs()} == {tmp_path}
    assert {job.release for job in plan.jobs()} == {tmp_path / "release"}


def test_a_release_is_repaired_from_a_folder_without_its_class_list(
    stand_in_recipe: Path, class_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    InProcess(monkeypatch)
    place, release = tmp_path / "place", tmp_path / "release"
    (tmp_path / "elsewhere").mkdir()
    place.mkdir()
    (place / "mine.csv").write_bytes(class_list.read_bytes())
    (place / "mine.toml").write_text(
        stand_in_recipe.read_text().replace(str(class_list), "mine.csv")
    )
    monkeypatch.chdir(place)
    assert build_dataset(recipe="mine.toml", per_class=2, out=str(release), as_json=True) == 0
    before = release_bytes(release)
    next((release / "16").iterdir()).write_bytes(b"damaged")
    monkeypatch.chdir(tmp_path / "elsewhere")
    repair(str(release), trust=["tests.stand_in"], as_json=True)
    assert release_bytes(release) == before
    assert extend(str(release), 3, trust=["tests.stand_in"], as_json=True) == 0
