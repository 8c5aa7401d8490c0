"""Whether a recipe's regime fits what its checkpoints say they learned from."""

from collections.abc import Sequence
from pathlib import Path

from builder.planning.checkpoints import LocatedGuide
from builder.planning.recipe import Recipe, StageRecipe
from generation.pretrained.training_data import TrainingData, training_data
from release.classes.class_list import builtin_lists
from release.errors import UserError


def require_regime(
    recipe: Recipe,
    chain: Sequence[StageRecipe],
    places: Sequence[Path],
    guides: Sequence[LocatedGuide | None] | None = None,
) -> None:
    """UserError for regime A over a checkpoint that was trained on images of the recipe's data set.

    places, guides: of each stage's checkpoint, and its guide; by default no stage has one.
    """
    guides = guides if guides is not None else [None] * len(chain)
    for stage, place, guide in zip(chain, places, guides, strict=True):
        found = [place, *([] if guide is None else [guide.place])]
        for named, of in zip(stage.checkpoints, found, strict=True):
            learned = training_data(of)
            if learned is None or not _is_of(recipe, learned):
                continue
            if (stage.regime or recipe.regime) == "A":
                raise UserError(
                    f"recipe {recipe.name}: regime A says that the generator never saw "
                    f"{recipe.dataset}, but checkpoint {named} was trained on {learned.release}, "
                    'images of it: set regime = "B"'
                )


def _is_of(recipe: Recipe, learned: TrainingData) -> bool:
    """Whether the images were of the recipe's data set, or of a class list that is the user's own.

    A built-in list is of many data sets; older checkpoints name no other thing.
    """
    if learned.dataset == recipe.dataset:
        return True
    own = not learned.dataset or learned.classes not in builtin_lists()
    return own and learned.classes == recipe.classes
