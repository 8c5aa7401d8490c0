"""The systems of benchmarks/fourteen_systems.py fit the recipes that they name."""

import runpy
from collections import Counter
from pathlib import Path

import pytest

from builder.planning.recipe import load_recipe
from generation.families import load_training_recipe
from tests.conftest import ROOT

SYSTEMS = runpy.run_path(str(ROOT / "benchmarks/systems_list.py"))["SYSTEMS"]


@pytest.mark.parametrize("number", range(len(SYSTEMS)), ids=[s.name for s in SYSTEMS])
def test_a_system_is_built_from_what_it_trains(number: int) -> None:
    """Each stage by a checkpoint of its own trainings, with a sweep of its sampler."""
    system = SYSTEMS[number]
    stages = load_recipe(system.build).stages
    recipes = [recipe for recipe, _ in system.trainings]
    assert len(system.sweeps) == len(stages)
    for stage in stages:
        builtin = stage.checkpoint.removeprefix("builtin:")
        trained = Path(stage.checkpoint).parent.name if builtin == stage.checkpoint else builtin
        assert trained in recipes
        assert load_training_recipe(trained).generator == stage.generator
    assert sum(share for _, share in system.trainings) == 1
    for recipe, start in system.starts.items():
        assert recipes.index(start) < recipes.index(recipe)


def test_there_are_fourteen_and_one_training_has_one_share() -> None:
    """Of those that two systems name: both take the steps that the share gives."""
    assert len(SYSTEMS) == 14
    shares = {training for system in SYSTEMS for training in system.trainings}
    assert len(shares) == len({recipe for recipe, _ in shares})
    counts = Counter(recipe for system in SYSTEMS for recipe, _ in system.trainings)
    assert [recipe for recipe, count in counts.items() if count > 1] == ["fashion-mnist-vq-f4"]
