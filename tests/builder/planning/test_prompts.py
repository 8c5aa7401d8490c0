"""Several prompts a class."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builder.planning.prompts import PromptChoice, PromptRecipe, choose_prompts
from builder.planning.recipe import load_recipe
from release.classes.class_list import class_definitions, load_classes
from release.errors import UserError
from release.layout.manifest import read_manifest
from tests.conftest import STAND_IN_RECIPE
from tests.forked_commands import run

TWO = """
[prompts]
templates = ["a photo of a {prompt}", "{name}, in oil"]
file = "texts.csv"
"""
TEXTS = "wnid,prompt\nc0,green apple\nc0,red apple\nc2,plum\n"
TRUST = ["--trust", "tests.stand_in", "--workers", "1"]


@pytest.fixture(scope="module")
def recipe(class_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "texts.csv").write_text(TEXTS)
    path = folder / "prompted.toml"
    text = STAND_IN_RECIPE.format(classes=class_list)
    path.write_text(text.replace("\n[shard]", TWO + "\n[shard]").replace("stand-in", "prompted"))
    return path


@pytest.fixture(scope="module")
def release(recipe: Path) -> Path:
    out = recipe.parent / "release"
    made = run(["build-dataset", "--recipe", recipe, "--per-class", "8", "--out", out])
    assert made.returncode == 0, made.stderr
    return out


def prompts_of(release: Path, resolution: int) -> dict[tuple[str, int], str]:
    tables = [pq.read_table(path) for path in sorted(release.glob(f"{resolution}/*.parquet"))]
    rows = [row for table in tables for row in table.drop_columns("image").to_pylist()]
    return {(row["class_id"], row["index"]): row["prompt"] for row in rows}


def test_every_template_meets_every_text_of_a_class(recipe: Path) -> None:
    prompts = load_recipe(str(recipe)).prompts
    assert prompts is not None
    classes = load_classes(load_recipe(str(recipe)).classes)
    assert prompts.of_class(classes[0]) == (
        "a photo of a green apple",
        "Apple, in oil",
        "a photo of a red apple",
    )
    assert prompts.of_class(classes[1]) == ("a photo of a pear", "Pear, in oil")
    assert prompts.file is None  # a release states the texts themselves


def test_an_image_draws_its_prompt_by_its_identity_alone() -> None:
    (entry, *_) = load_classes("imagenet-1k")
    texts = tuple(f"text {i}" for i in range(5))
    choice = PromptChoice(7, {entry.wnid: texts})
    drawn = [choice.of(entry, index) for index in range(5000)]
    assert all(900 < count < 1100 for count in Counter(drawn).values())
    assert drawn[:9] == [choice.of(entry, index) for index in range(9)]
    assert drawn != [PromptChoice(8, {entry.wnid: texts}).of(entry, i) for i in range(5000)]
    assert choose_prompts(None, 7, [entry]).of(entry, 3) == entry.prompt


def test_definitions_are_wordnets_of_all_of_imagenet() -> None:
    classes = load_classes("imagenet-1k")
    definitions = class_definitions(classes)
    assert len(definitions) == 1000
    assert all(definitions.values())
    prompts = PromptRecipe(templates=("a {name}: {definition}",)).complete(classes, Path())
    cranes = [c for c in classes if "crane" in c.name]
    assert [prompts.of_class(c)[0].split(":")[1] for c in cranes] == [
        " large long-necked wading bird of marshes and plains in many parts of the world",
        " lifts and moves heavy objects; lifting tackle is suspended from a pivoted boom that "
        "rotates around a vertical axis",
    ]


def test_each_row_says_its_prompt_and_all_stages_share_it(release: Path, recipe: Path) -> None:
    found = prompts_of(release, 8)
    assert found == prompts_of(release, 16) == prompts_of(release, 32)
    loaded = load_recipe(str(recipe))
    choice = choose_prompts(loaded.prompts, loaded.seed, load_classes(loaded.classes))
    for entry in load_classes(loaded.classes):
        for index in range(8):
            assert found[entry.wnid, index] == choice.of(entry, index)
    assert len({prompt for (wnid, _), prompt in found.items() if wnid == "c0"}) == 3
    assert run(["release", "verify", release]).returncode == 0


def test_a_release_that_grows_keeps_its_prompts(release: Path, recipe: Path) -> None:
    before = prompts_of(release, 16)
    (recipe.parent / "texts.csv").rename(recipe.parent / "gone.csv")
    grown = run(["release", "extend", release, "--per-class", "10", *TRUST])
    (recipe.parent / "gone.csv").rename(recipe.parent / "texts.csv")
    assert grown.returncode == 0, grown.stderr
    after = prompts_of(release, 16)
    assert len(after) == 30
    assert before.items() <= after.items()
    again = ["build-dataset", "--recipe", recipe, "--per-class", "10", "--out", release]
    assert run(again).returncode == 0  # the recipe's file is the release's own still


def test_other_prompts_are_another_release(release: Path, recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text().replace("in oil", "in ink")
    (tmp_path / "prompted.toml").write_text(text)
    (tmp_path / "texts.csv").write_text(TEXTS)
    build = ["build-dataset", "--recipe", tmp_path / "prompted.toml", "--per-class", "8"]
    other = run([*build, "--out", release])
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1), other.stderr
    assert "prompts was " in other.stderr


def test_the_manifest_states_the_texts_themselves(release: Path) -> None:
    prompts = read_manifest(release).origin["recipe"]["prompts"]
    assert prompts["texts"] == {"c0": ["green apple", "red apple"], "c2": ["plum"]}
    assert "file" not in prompts


def test_without_prompts_nothing_is_named(stand_in_recipe: Path) -> None:
    assert "prompts" not in load_recipe(str(stand_in_recipe)).model_dump()


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ('templates = ["a {colour} one"]', r"may hold \{prompt\}, \{name\}, \{definition\}"),
        ('templates = ["a {prompt.__class__}"]', "may hold"),
        ('templates = ["a {prompt!r}"]', "may hold"),
        ('templates = ["a {}"]', "may hold"),
        ('templates = ["a {prompt"]', "expected '}'"),
        ("templates = []", "at least 1 item"),
        ('file = "no-such.csv"', "no-such.csv does not exist"),
        ('texts = { c9 = ["a"] }', "unknown class of a prompt 'c9'; known: c0, c1, c2"),
        ("texts = { c0 = [] }", "prompts of c0: a text is missing or empty"),
        ('texts = { c0 = [" "] }', "prompts of c0: a text is missing or empty"),
        ('templates = ["{definition}"]', "class c0 has no definition here"),
    ],
)
def test_what_does_not_fit_is_one_line(
    class_list: Path, tmp_path: Path, prompts: str, said: str
) -> None:
    text = STAND_IN_RECIPE.format(classes=class_list)
    path = tmp_path / "prompted.toml"
    path.write_text(text.replace("\n[shard]", f"\n[prompts]\n{prompts}\n\n[shard]"))
    with pytest.raises(UserError, match=said) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"class,text\nc0,apple\n", "need the columns wnid and prompt"),
        (b"", "need the columns wnid and prompt"),
        (b"wnid,prompt\nc0,caf\xe9\n", "cannot be read as CSV in UTF-8"),
        (b"wnid,prompt\nc0\n", "prompts of c0: a text is missing or empty"),
    ],
)
def test_a_file_of_other_things_is_one_line(
    recipe: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "prompted.toml").write_text(recipe.read_text())
    (tmp_path / "texts.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_recipe(str(tmp_path / "prompted.toml"))
