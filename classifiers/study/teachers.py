"""Teachers that a study trains itself: of a model with [teacher] the real arm learns without one,
and its classifier teaches the arms with generated images of the same size and seed."""

from collections.abc import Iterable

from classifiers.recipes.recipe import POOLED, ClassifierRecipe


def is_taught(kind: str) -> bool:
    """Whether arms of this kind learn from a teacher, where their model has one."""
    return "generated" in kind


def on_real_images(
    recipe: ClassifierRecipe, models: Iterable[ClassifierRecipe]
) -> ClassifierRecipe:
    """`recipe` without its teacher and its mixing, by the name of the first of `models` that is
    just that, so that both are one training; models that have neither themselves come first.

    models: all of a study, `recipe` among them. A recipe that has neither stays as it is.
    """
    if _plain(recipe) == recipe:
        return recipe
    wanted = _plain(recipe).protocol()
    ordered = sorted(models, key=lambda model: model != _plain(model))
    return next(own for own in map(_plain, ordered) if own.protocol() == wanted)


def _plain(recipe: ClassifierRecipe) -> ClassifierRecipe:
    return recipe.model_copy(update={"teacher": None, "mixing": POOLED})
