"""What a classifier's recipe is called: its name, and what a training had set otherwise."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from cards.measured.settings import Settings, flatten
from classifiers.recipes.changes import with_changes
from classifiers.recipes.recipe import ClassifierRecipe, load_recipe, recipe_names

PROTOCOL = "protocol"
FIELDS = ["resolution", "epochs", "steps", *ClassifierRecipe.model_fields]  # what tells most first
TOLD_BESIDE = {"model", "test_split", "checkpoint"}


def recipe_title(name: str, settings: Settings, namesakes: Sequence[Settings]) -> str:
    """The recipe `name` as a training of these flat settings followed it.

    namesakes: settings of all trainings by a recipe of this name. Told is what differs from the
    built-in recipe, or where the recipe is the user's own, between the namesakes.
    """
    followed = _of_recipe(settings)
    apart = _differing([_of_recipe(each) for each in namesakes])
    told = _differing([_builtin(name), followed]) if name in recipe_names() else apart
    if followed.get("steps") is not None:  # which stand in place of epochs
        told -= {"epochs"}
    ordered = sorted(told - TOLD_BESIDE, key=lambda key: (key not in apart, _place(key), key))
    return with_changes(name, [f"{key}={_spelled(followed, key)}" for key in ordered])


def _of_recipe(settings: Settings) -> Settings:
    return {
        key.removeprefix(f"{PROTOCOL}."): value
        for key, value in settings.items()
        if key.startswith(f"{PROTOCOL}.")
    }


@cache
def _builtin(name: str) -> Settings:
    protocol = load_recipe(name).protocol()
    return _of_recipe(flatten(PROTOCOL, {**protocol, "steps": None}))


def _differing(settings: Sequence[Settings]) -> set[str]:
    names = {name for each in settings for name in each}
    return {n for n in names if any(s.get(n) != settings[0].get(n) for s in settings)}


def _place(key: str) -> int:
    field = key.partition(".")[0]
    return FIELDS.index(field) if field in FIELDS else len(FIELDS)  # of a version to come


def _spelled(settings: Settings, key: str) -> str:
    """As --set takes it; a setting that a protocol leaves out has its default."""
    value: Any = settings.get(key, "default")
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
