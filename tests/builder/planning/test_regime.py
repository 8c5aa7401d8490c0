"""A recipe's regime beside what its checkpoints learned from."""

import json
from pathlib import Path

import pytest

from builder.planning.recipe import load_recipe
from builder.planning.regime import require_regime
from release.errors import UserError


def record(folder: Path, classes: str, **data: str) -> Path:
    content = {"data": {"release": "imported"} | data, "recipe": {"classes": classes}}
    (folder / "training.json").write_text(json.dumps(content))
    return folder


def test_regime_a_is_refused_over_a_checkpoint_trained_on_the_same_classes(tmp_path: Path) -> None:
    recipe = load_recipe("imagenet-sana")
    chain = recipe.chain(1024)
    assert recipe.regime == "A"
    places = [tmp_path for _ in chain]
    require_regime(recipe, chain, places)  # it says nothing of its training
    require_regime(recipe, chain, [record(tmp_path, "fashion-mnist") for _ in chain])
    record(tmp_path, recipe.classes)
    with pytest.raises(UserError, match=r'was trained on imported, .* set regime = "B"'):
        require_regime(recipe, chain, places)
    weights = tmp_path / "weights.safetensors"  # a checkpoint that is a file
    weights.touch()
    with pytest.raises(UserError, match="regime A says"):
        require_regime(recipe, chain, [weights for _ in chain])
    require_regime(recipe.model_copy(update={"regime": "B"}), chain, places)
    stage = chain[0].model_copy(update={"regime": "B"})
    require_regime(recipe.model_copy(update={"regime": "B"}), [stage], places[:1])


def test_a_data_set_is_known_by_its_name_however_its_classes_were_named(tmp_path: Path) -> None:
    """Recipes that take their classes from the data record where these stood."""
    recipe = load_recipe("imagenet-sana")
    chain = recipe.chain(1024)
    places = [record(tmp_path, "releases/imagenet-1k-real", dataset="imagenet-1k") for _ in chain]
    with pytest.raises(UserError, match=r"never saw imagenet-1k, but .* was trained on imported"):
        require_regime(recipe, chain, places)
    record(tmp_path, "imagenet-1k", dataset="photos")  # of the same classes, and no image of it
    require_regime(recipe, chain, places)
    mine = recipe.model_copy(update={"classes": "tries/pets/real", "dataset": "called otherwise"})
    record(tmp_path, "tries/pets/real", dataset="pets")
    with pytest.raises(UserError, match="regime A says"):
        require_regime(mine, chain, places)
