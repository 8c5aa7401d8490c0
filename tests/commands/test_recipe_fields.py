"""docs/recipe-fields.md: every field of every recipe, with its default."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from builder.planning.recipe import Recipe
from classifiers.recipes.recipe import ClassifierRecipe
from generation.denoisers.recipe import DenoiserTraining
from generation.families import TRAINED, trainable
from generation.training.config import TrainingConfig
from generation.training.recipe import TrainingRecipe
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "recipe-fields.md").read_text()


def families() -> set[type[TrainingRecipe]]:
    """Of the generators that are trained."""
    for name in TRAINED:
        trainable(name)
    return {recipe for recipe in _below(TrainingRecipe) if not _below(recipe)}


def _below(model: type[Any]) -> set[type[Any]]:
    return {model for one in model.__subclasses__() for model in (one, *_below(one))}


def tables(recipe: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The recipe and what it holds."""
    yield recipe
    for field in recipe.model_fields.values():
        for held in _models(field.annotation):
            yield from tables(held)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def rows(model: type[BaseModel]) -> list[tuple[str, str]]:
    """As the document has them; settings that all families have are one table of it."""
    inherited: set[str] = set()
    for base in (TrainingConfig, DenoiserTraining, TrainingRecipe):
        if issubclass(model, base) and model is not base:
            inherited |= base.model_fields.keys()
    return [
        (field.alias or name, _default(field))
        for name, field in model.model_fields.items()
        if name not in inherited and not _is_a_table_of_a_family(model, name)
    ]


def _is_a_table_of_a_family(model: type[BaseModel], name: str) -> bool:
    return issubclass(model, TrainingRecipe) and name in ("stage", "network")


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value in (None, "", (), {}):
        return "none"
    return "its defaults" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def documented() -> list[list[tuple[str, str]]]:
    """The rows of each table: field and default."""
    found = re.findall(
        r"\| field \| default \| what it is \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", TEXT
    )
    return [re.findall(r"^\| `(\w+)` \| (.*?) \| \S.* \|$", table, re.M) for table in found]


MODELS = sorted(
    {
        model
        for recipe in (Recipe, ClassifierRecipe, TrainingRecipe, DenoiserTraining, *families())
        for model in tables(recipe)
    },
    key=lambda model: f"{model.__module__}.{model.__name__}",
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_stands_in_the_document(model: type[BaseModel]) -> None:
    wanted = rows(model)
    assert not wanted or wanted in documented(), f"docs/recipe-fields.md lacks the table {wanted}"


def test_the_document_has_no_field_that_there_is_not() -> None:
    known = [rows(model) for model in MODELS]
    assert [table for table in documented() if table not in known] == []


def test_every_table_is_read() -> None:
    assert len(documented()) == TEXT.count("| field | default |")
    assert all(documented())
