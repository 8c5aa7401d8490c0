"""What a recipe says of its models: printed, written into the manifest and card, in no pixel."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from builder.builds.estimate import BYTES_A_PIXEL
from builder.planning.device_cost import Device, device_cost
from builder.planning.plan import plan_stages
from builder.planning.recipe import BUILTIN, StageRecipe, load_recipe
from generation.families import load_training_recipe, trainable
from generation.training.recipe import BUILTIN as TRAINING
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.conftest import state_facts
from tests.forked_commands import run

TRAINING_RECIPES = {path.stem for path in TRAINING.glob("*.toml")}
SMALL_CARD = Device.named("a100-40", None)
SMALL_FP8_CARD = Device.named("rtx-4090", None)  # the other has none

FACTS = """
sampler_source = "tried on three images"

[stage.model]
name = "Flat Colours"
license = "made-up-1.0"
images = "Images may be shared under a blue moon."
left_out = "the moon's watermark"
source = "this test"

[stage.cost]
seconds = 9.0
hardware = "one slow machine"
memory_gib = 2
source = "a guess"

[[stage.published]]
fid = 2.5
settings = "3 images"
source = "nobody"
"""


@pytest.fixture
def with_facts(stand_in_recipe: Path, tmp_path: Path) -> Path:
    """The stand-in chain; its last stage has facts, and never saw the data the others learned."""
    text = state_facts(stand_in_recipe.read_text(), 2).replace('regime = "A"', 'regime = "B"')
    path = tmp_path / "facts.toml"
    path.write_text(text + '\nregime = "A"' + FACTS)
    return path


def test_facts_decide_no_fingerprint_but_compiling_does(
    stand_in_recipe: Path, with_facts: Path, tmp_path: Path
) -> None:
    classes = load_classes(load_recipe(str(stand_in_recipe)).classes)

    def fingerprints(path: Path) -> list[str]:
        recipe = load_recipe(str(path))
        stages = plan_stages(recipe, recipe.stages, classes, ["a" * 64] * 3)
        return [stage.fingerprint for stage in stages]

    plain = fingerprints(stand_in_recipe)
    assert fingerprints(with_facts) == plain
    compiled = tmp_path / "compiled.toml"
    compiled.write_text(stand_in_recipe.read_text() + "\ncompile = true\n")
    assert fingerprints(compiled)[:2] == plain[:2]
    assert fingerprints(compiled)[2] != plain[2]


def test_the_dry_run_prints_them(with_facts: Path, tmp_path: Path) -> None:
    command = ["build-dataset", "--recipe", with_facts, "--per-class", "400", "--dry-run"]
    text = run(command).stdout
    for fact in (
        "Flat Colours",
        "made-up-1.0. Images: Images may be shared under a blue moon.",
        "not applied: the moon's watermark",
        "9 s an image, 3.0 hours in all on one slow machine",
        "weights: here, ",
        "tried on three images",
        "FID 2.5; 3 images (nobody)",
        "regime A: the generator never saw",
        "regime B: the generator was trained",
    ):
        assert fact in text
    stage = json.loads(run([*command, "--json"]).stdout)["stages"][2]
    assert (stage["regime"], stage["device_hours"]) == ("A", 3.0)
    assert stage["cost"]["memory_gib"] == 2
    assert not (tmp_path / "release").exists()


def test_the_dry_run_says_what_a_card_will_lack(stand_in_recipe: Path) -> None:
    command = ["build-dataset", "--recipe", stand_in_recipe, "--per-class", "1", "--dry-run"]
    needed = "model: not said; render-card needs [stage.model]: name, license, images, source"
    assert run(command).stdout.count(needed) == 3


def test_the_card_says_under_what_terms_and_which_stage_never_saw_the_data(
    with_facts: Path, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    build = ["build-dataset", "--recipe", with_facts, "--per-class", "1", "--out", release]
    assert run(build).returncode == 0
    assert run(["render-card", release]).returncode == 0
    card = (release / "README.md").read_text()
    assert "32 px: Flat Colours, made-up-1.0. Images may be shared under a blue moon." in card
    assert "\n- Not applied: the moon's watermark" in card
    assert "\n- The generator never saw the real images of test (regime A)." in card
    assert "trained or fine-tuned on real images of test (regime B)" in card


def test_a_chain_is_of_no_better_regime_than_its_stages(
    stand_in_recipe: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(stand_in_recipe.read_text() + '\nregime = "B"\n')
    with pytest.raises(UserError, match="regime A cannot hold for a chain whose stage at 32 px"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", sorted(p.stem for p in BUILTIN.glob("*.toml")))
def test_every_recipe_states_its_models_and_samplers(name: str) -> None:
    for stage in load_recipe(name).stages:
        assert stage.model is not None
        assert stage.cost is not None or name.startswith("fashion-mnist")
        assert stage.sampler_source


TRAINED_BY_USERS = [  # ImageNet's networks are counted by their own tests
    pytest.param(stage, id=f"{name}-{stage.resolution}")
    for name in sorted(p.stem for p in BUILTIN.glob("fashion-mnist*.toml"))
    for stage in load_recipe(name).stages
    if Path(stage.checkpoint).parent.name in TRAINING_RECIPES
]


@pytest.mark.parametrize("stage", TRAINED_BY_USERS)
def test_a_model_that_users_train_has_as_many_parameters_as_its_name_says(
    stage: StageRecipe,
) -> None:
    training: Any = load_training_recipe(Path(stage.checkpoint).parent.name)
    counted = trainable(training.generator).memory(training, 1).parameters
    assert stage.model is not None
    said = re.search(r"([\d.]+) ([MG]) parameters", stage.model.name)
    assert said is not None, stage.model.name
    number, unit = said[1], {"M": 1e6, "G": 1e9}[said[2]]
    digits = len(number.partition(".")[2])
    assert f"{counted / unit:.{digits}f}" == number


@pytest.mark.parametrize("name", sorted(p.stem for p in BUILTIN.glob("imagenet-*.toml")))
def test_files_of_every_imagenet_recipe_are_of_a_sensible_size(name: str) -> None:
    """docs/recipes.md, sizes of shards: at 1,200 images of each of 1,000 classes."""
    recipe = load_recipe(name)
    rows = recipe.shard.classes * recipe.shard.indices
    assert 1000 % recipe.shard.classes == 1200 % recipe.shard.indices == 0
    assert 1_200_000 / rows < 10_000  # files a folder, as the Hub wants it
    last = recipe.stages[-1]
    size = rows * BYTES_A_PIXEL[recipe.encoding] * last.resolution**2
    fp8 = any(stage.precision for stage in recipe.stages)
    costs = [device_cost(stage, SMALL_FP8_CARD if fp8 else SMALL_CARD) for stage in recipe.stages]
    hours = [rows * cost.seconds / 3600 for cost in costs if cost is not None]
    assert len(hours) == len(recipe.stages)
    assert size < 1.2e9
    assert size > 250e6 or max(hours) > 0.2  # larger, unless a kill would cost too much
    assert max(hours) < 5
