"""try-images: fewer images, classes without any, copies, other images, an --out among them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from builder.build_dataset import build_dataset
from cards.trial import conducting
from cards.trial.own_images import look_at
from cards.trial.plan import Found, Plan
from cards.trial.recipes import study
from cards.try_images import try_images
from classifiers.study.study_file import load_study, needed_per_class
from release.errors import UserError
from release.real_sources.opening import open_source
from tests.cards.test_trial import ASKED, FOUND, PACES, photographs, planned


def written(plan: Plan, folder: Path) -> Any:
    (folder / "study.toml").write_text(study(plan, folder))
    return load_study(str(folder / "study.toml"))


@pytest.mark.parametrize(("asked", "size", "images"), [(None, "all", 48), (20, 20, 20)])
def test_the_study_of_some_images_states_those_there_are(
    tmp_path: Path, asked: int | None, size: int | str, images: int
) -> None:
    """By which it tells a release of other images; what is generated follows from the size."""
    made = planned(per_class=asked)
    found = written(made, tmp_path)
    assert (found.sizes, found.real.per_class) == ((size,), 48)
    assert needed_per_class(found, found.generated[0], size) == made.generated == images


def test_more_images_than_there_are_is_all_of_them(tmp_path: Path) -> None:
    made = planned(per_class=500)
    assert (made.per_class, written(made, tmp_path).sizes) == (None, ("all",))


def test_more_images_than_most_classes_have_is_one_line() -> None:
    uneven = Found("photos", 3, 144, 20, 100, 36, "test", 200, colour=True)
    told = "--per-class 60: a class has 48 images on average, the commonest 100: give 48 at most"
    with pytest.raises(UserError, match=told):
        planned(uneven, per_class=60)


def test_generated_images_alone_make_as_many_updates_as_real_ones_alone(tmp_path: Path) -> None:
    (alone,) = (arm for arm in written(planned(), tmp_path).arms if arm.kind == "generated")
    assert alone.budgets == ("steps",)


def divided(root: Path) -> Path:
    """SPLIT/CLASS/image; a test image stands in train, too."""
    photographs(root / "train")
    for name in ("cat", "dog"):
        (root / "test" / name).mkdir(parents=True)
        for i in (0, 1):
            shutil.move(root / f"train/{name}/{i}.png", root / f"test/{name}/{i}.png")
    shutil.copy(root / "test/cat/0.png", root / "train/cat/again.png")
    return root


def imported(photos: Path, out: Path) -> Found:
    build_dataset(real=str(photos), views="16", out=str(out), workers=1)
    return conducting.imported(out, look_at(ASKED.model_copy(update={"images": str(photos)})))


def test_test_images_that_were_trained_on_are_told(tmp_path: Path) -> None:
    found = imported(divided(tmp_path / "photos"), tmp_path / "real")
    assert found.copies == 1
    assert "1 test image is a copy of training images" in str(found)
    assert "cop" not in str(FOUND)


def test_a_class_that_only_the_tests_have_is_told_before_a_generator_is_trained(
    tmp_path: Path,
) -> None:
    photos = divided(tmp_path / "photos")
    (photos / "test/bird").mkdir()
    shutil.copy(photos / "test/dog/1.png", photos / "test/bird/1.png")
    with pytest.raises(UserError, match="train has no image of 'bird', which test has: put images"):
        imported(photos, tmp_path / "real")


def test_other_images_than_the_trial_was_begun_with_are_another_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = photographs(tmp_path / "photos"), tmp_path / "trial"
    asked = ASKED.model_copy(update={"images": str(photos), "res": 16})
    monkeypatch.setattr(conducting, "_paces", lambda *_, **__: PACES)
    monkeypatch.setattr(conducting, "imported", lambda *_: FOUND)
    for name in ("run_steps", "_answer"):
        monkeypatch.setattr(conducting, name, lambda *_, **__: None)
    for _ in range(2):
        conducting.conduct(asked, out, quiet=True)
    shutil.copy(photos / "cat/1.png", photos / "dog/cat.png")
    open_source.cache_clear()  # as in another process
    with pytest.raises(UserError, match=r"photos are others than when .*trial was begun: name an"):
        conducting.conduct(asked, out, quiet=True)


@pytest.mark.parametrize("out", [None, "mine/tries"])
def test_an_out_among_the_images_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    photographs(tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")
    with pytest.raises(UserError, match=r"stands among the images of .*: name one outside"):
        try_images(".", out=None if out is None else Path(out))
    assert sorted(path.name for path in Path().iterdir()) == ["cat", "dog"]
