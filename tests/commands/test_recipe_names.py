"""A recipe's name becomes a folder's: a plain one, whatever kind of recipe it is."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import builder.planning.recipe
import classifiers.recipes.recipe
import classifiers.study.study_file
import generation.families
import generation.training.recipe
from builder.build_dataset import build_dataset
from release.errors import UserError

KINDS: list[tuple[Path, Callable[[str], object]]] = [
    (builder.planning.recipe.BUILTIN / "fashion-mnist.toml", builder.planning.recipe.load_recipe),
    (
        generation.training.recipe.BUILTIN / "fashion-mnist-16.toml",
        generation.families.load_training_recipe,
    ),
    (
        classifiers.recipes.recipe.BUILTIN / "small-resnet-32.toml",
        classifiers.recipes.recipe.load_recipe,
    ),
    (
        classifiers.study.study_file.BUILTIN / "fashion-mnist.toml",
        classifiers.study.study_file.load_study,
    ),
]
HOSTILE = ("../../x", "/tmp/x", "", ".", "..", ".hidden", "a/b", "a b", "a\\\\b", "x" * 200)


def named(original: Path, name: str, folder: Path) -> str:
    """A copy of a recipe of ours under another name."""
    copy = folder / "mine.toml"
    shutil.copy(original, copy)
    text = re.sub(
        r'^name = ".*"$', lambda _: f'name = "{name}"', copy.read_text(), count=1, flags=re.M
    )
    copy.write_text(text)
    return str(copy)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("original", "load"), KINDS)
def test_a_name_that_is_no_plain_one_is_refused(
    original: Path, load: Callable[[str], object], name: str, tmp_path: Path
):
    with pytest.raises(UserError, match=r"mine\.toml: name: "):
        load(named(original, name, tmp_path))


@pytest.mark.parametrize("name", ["mine", "mine_2.1", "Größe-32", "-", "x" * 100])
@pytest.mark.parametrize(("original", "load"), KINDS)
def test_a_plain_name_is_taken(
    original: Path, load: Callable[[str], object], name: str, tmp_path: Path
):
    assert load(named(original, name, tmp_path)).name == name  # type: ignore[attr-defined]


def test_a_build_writes_nothing_for_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    source = named(KINDS[0][0], "../../x", tmp_path / "here")
    with pytest.raises(UserError, match="is no plain name: give letters, digits"):
        build_dataset(recipe=source, per_class=1)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["here", "mine.toml"]
